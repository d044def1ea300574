"""Linen blocks shared by two or more systems."""
