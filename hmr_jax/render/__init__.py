"""A JAX rasteriser and the drawing of overlays and contact sheets."""
