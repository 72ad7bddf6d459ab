"""Synthetic data: dancers, and a robot arm that pushes objects."""
