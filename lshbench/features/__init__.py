"""Features: image encoders, feature extraction and the cache of extracted features."""
