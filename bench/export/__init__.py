"""From a trained run to a folder that others load."""
