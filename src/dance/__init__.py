"""Everything that only the dance system needs."""
