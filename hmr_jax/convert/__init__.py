"""PyTorch checkpoints to variables, without PyTorch."""
