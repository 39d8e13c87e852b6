"""Measured speed: the Trainer and our engines side by side in one process, on one device."""
