"""Rankings to figures: evaluation, the exact reference, timing, and an index over its query settings."""
