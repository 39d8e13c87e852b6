"""A run: its identity, its execution, its record."""
