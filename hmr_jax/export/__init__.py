"""Parameters and programs out: npz, safetensors, StableHLO."""
