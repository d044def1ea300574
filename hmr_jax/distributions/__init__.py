"""Probability distributions over rotations and vectors, usable on their own."""
