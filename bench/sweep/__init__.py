"""Sweeps: plan, run what is missing, list what failed."""
