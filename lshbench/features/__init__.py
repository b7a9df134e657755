"""Features: image encoders, the extraction loop and the store that keeps its results."""
