"""Search in finished runs by images or feature vectors."""
