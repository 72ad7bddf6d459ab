"""What all other folders use: messages, files, processes, random numbers, settings."""
