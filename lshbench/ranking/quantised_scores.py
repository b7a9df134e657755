"""Scores of what a quantiser stores, straight from the bytes: nothing is decoded.

A few queries are scored so; for many, matrix products with decoded vectors are faster.  The scores are the same but
for rounding.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads

from lshbench.kernels import quantised
from lshbench.types import ByteTables, HalfPrecision, LevelWeights

FEW_BYTES = 1 << 18
"""Bytes of codes compared in the time that starting other threads takes: fewer are compared by one."""


def write_scores(
    terms: ByteTables | LevelWeights | HalfPrecision, query: int, stored: np.ndarray, scores: np.ndarray
) -> None:
    """Write a query's scores of some codes, equal ones for equal codes; without what :attr:`ByteTables.last` adds.

    Args:
        terms: what bytes add to scores.
        query: its row there.
        stored: uint8 ``(n, bytes)``, with finite factors or float16 numbers.
        scores: float32 ``(n,)``, filled.
    """
    parts = get_num_threads() if stored.nbytes >= FEW_BYTES else 1
    if isinstance(terms, HalfPrecision):
        scores[:] = 0
        quantised.add_half_precision(stored.view(np.uint16), terms.x[query], parts, scores)
        return
    scores[:] = terms.start[query]
    if isinstance(terms, LevelWeights):
        add = quantised.add_levels if len(terms.squares) == 1 else quantised.add_half_levels
        add(stored, terms.weights[query], terms.squares, parts, scores)
        return
    for first, tables in terms.tables:
        quantised.add_looked_up(stored, first, tables[query], parts, scores)
    if terms.factors is not None:
        assert terms.weight is not None
        assert terms.added is not None
        factors = stored[:, terms.factors : terms.factors + 8].view("<f4")
        scores *= factors[:, 1]
        scores += factors[:, 0] * terms.weight[query] + terms.added[query]
