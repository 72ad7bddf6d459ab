"""What every other room stands on: messages, files, processes, random numbers."""
