"""Synthetic samples: sampled bodies, motion, cameras and renders with every label."""
