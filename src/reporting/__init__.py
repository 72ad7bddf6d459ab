"""What people look at: plots, tables, comparisons over seeds."""
