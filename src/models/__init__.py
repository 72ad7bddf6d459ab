"""The models and their settings."""
