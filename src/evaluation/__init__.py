"""Rollouts of trained models, and their scores."""
