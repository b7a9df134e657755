"""From rankings to figures: evaluation, the exact reference, timing, and trade-offs over query settings."""
