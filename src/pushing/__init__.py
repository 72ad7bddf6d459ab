"""What is special to robot pushing."""
