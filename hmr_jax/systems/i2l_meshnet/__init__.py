"""I2L-MeshNet (ECCV 2020)."""
