"""lshbench: hash codes for image retrieval, judged by labels."""

__version__ = "0.1.0"
