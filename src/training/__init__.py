"""The parts of the trainer: checkpoints, log, and decisions that are made when a run starts."""
