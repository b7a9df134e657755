"""Experiment trackers that finished runs can be sent to."""
