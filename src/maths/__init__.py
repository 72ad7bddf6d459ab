"""Pure functions: losses, schedules, metrics."""
