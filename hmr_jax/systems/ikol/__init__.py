"""IKOL (AAAI 2023): inverse kinematics as an optimisation layer."""
