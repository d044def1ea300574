"""State, step, parallel map, optimiser, checkpoints and the loop."""
