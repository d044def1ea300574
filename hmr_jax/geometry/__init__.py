"""Rotations, cameras, alignment and safe mathematics."""
