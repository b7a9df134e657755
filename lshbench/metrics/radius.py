"""Precision and recall of all items within a Hamming radius, which takes whole groups of ties."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lshbench.metrics.groups import hits_within, ratio
from lshbench.types import RankedBlock


class WithinRadius(NamedTuple):
    """Items, precision and recall within some radii.

    Attributes:
        items: int64 ``(q, m)``, items within each radius.
        hits: float64 ``(q, m)``, the relevant ones among them.
        precision: hits / items, 0 where nothing is within the radius.
        recall: hits / R.
    """

    items: np.ndarray
    hits: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def within_radius(block: RankedBlock, radii: np.ndarray) -> WithinRadius:
    """Return counts, precision and recall within Hamming radii.

    The items within a radius are the first ``block.within[:, radius]`` ranks, a rank at which a group ends,
    so that the hits among them are certain.

    Args:
        block: rankings by Hamming distance (``block.within`` is set).
        radii: int64 ``(m,)``; a radius beyond the code's length takes in all ranked items.
    """
    if block.within is None:
        raise ValueError("a ranking by a real-valued distance has no Hamming radius: block.within is None")
    items = block.within[:, np.minimum(radii, block.within.shape[1] - 1)].astype(np.int64, copy=False)
    hits = hits_within(block, items).expected
    recall = ratio(hits, np.broadcast_to(block.total_relevant[:, None], hits.shape))
    return WithinRadius(items, hits, ratio(hits, items), recall)
