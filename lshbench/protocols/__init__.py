"""Who is query, gallery and training, and the audit of every run."""
