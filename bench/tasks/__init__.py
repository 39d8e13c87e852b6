"""Tasks: what they are, where their rows come from, how they are scored."""
