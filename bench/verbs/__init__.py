"""What each word after `python -m bench` does: a few lines that call a room."""
