"""Synthetic data: dancers and a robot arm."""
