"""A finished run, opened to answer: pictures and vectors in, gallery items out."""
