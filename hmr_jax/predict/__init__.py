"""Persons in pictures: who is where, their bodies, result files and pictures."""
