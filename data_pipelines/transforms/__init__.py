"""Augmentation and label transforms, one module per system."""
