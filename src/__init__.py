"""Conditional video prediction with variational autoencoders: from a data set on disk to a scored submission."""
