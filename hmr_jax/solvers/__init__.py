"""Least squares and inverse kinematics."""
