"""What is special to dancers."""
