"""What the trainer is made of: checkpoints and the log."""
