"""Reads a user's zip or folder of pictures safely, checks it, and decodes it into arrays."""
