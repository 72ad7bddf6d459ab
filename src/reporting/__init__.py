"""Results for people: plots, tables and comparisons over seeds."""
