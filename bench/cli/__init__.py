"""The command line: a table of verbs, and a few lines for each."""
