"""Tables of finished runs: the summary at the end of a run, and comparisons with significance tests."""
