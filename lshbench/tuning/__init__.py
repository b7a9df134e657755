"""Tuning: values of a configuration chosen by a study of trials, judged on a part of the training set."""
