"""What a trained model draws, and how it is judged."""
