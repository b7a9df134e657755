"""Evaluation protocols: queries, gallery and training set, and the audit of every run."""
