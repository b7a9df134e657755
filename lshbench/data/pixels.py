"""The bound on an image's pixels, which holds for the whole process: memory for an image is taken at once."""

from __future__ import annotations

MOST_PIXELS = 178_956_970
"""Pixels that an image may have unless ``backbone.max_pixels`` says otherwise: half a gigabyte as RGB."""

_most = MOST_PIXELS


def limit_pixels(most: int) -> None:
    """Let images of more pixels count as unreadable from now on."""
    global _most
    _most = most


def most_pixels() -> int:
    """Return how many pixels an image may have."""
    return _most
