"""Tasks: their definition, the sources of their rows, their tokens and scores."""
