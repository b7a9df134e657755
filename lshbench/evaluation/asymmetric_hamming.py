"""The "asymmetric Hamming" of papers: the L1 distance of squashed queries to the gallery's bits.

A sigmoid of a projection p differs from the nearer of the bits 0 and 1 by some amount, and from the other by as much
and tanh(|p| / 2) more.  The first is the same for all items: the ranking is the asymmetric one of projections
tanh(p / 2).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lshbench.index.base import Index
from lshbench.metrics.average_precision import average_precision
from lshbench.types import Encoded, Relevance

DEFINITION = "mAP@all/asymmetric_hamming"


def asymmetric_hamming(index: Index, queries: Encoded, relevance: Relevance) -> dict[str, float | None]:
    """Return the definition by its name, of an index that ranks a whole gallery of binary codes by projections; else
    nothing."""
    if not (index.exhaustive and index.gives == "binary" and index.ranking == "asymmetric"):
        return {}
    squashed = np.tanh(queries.projections / np.float32(2))
    blocks = index.rank(replace(queries, codes=replace(queries.binary, projections=squashed)), relevance, positions=0)
    return {DEFINITION: float(np.concatenate([average_precision(block).expected for block in blocks]).mean())}
