"""What can be asked: the schema of a run, and Hydra's way from text to it."""
