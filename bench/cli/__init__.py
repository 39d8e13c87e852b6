"""The command line: the grammar of all verbs, and a few lines for each verb, grouped by what they import."""
