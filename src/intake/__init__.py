"""What people have, a zip or a folder of pictures, read safely, verified, and decoded into arrays."""
