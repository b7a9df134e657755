"""Definitions of published figures: every definition of mAP, P@k and precision within a radius, by name.

Published figures of hash codes can't be compared as they stand, because the code behind them divides by
different numbers and leaves out different queries.  :data:`DEFINITIONS` names each variant, says what it does
and which code reports it, so that one run can be held against a paper by the paper's own measure.

Variants whose denominator is certain (R, k, all that was ranked) are expectations over ties, as the headline is.  The
"hits" variants divide by the relevant items *found* within the top k, a ratio of two random numbers without a closed
expectation: they are computed on the stable order (distance, then gallery row), and marked ``order="stable"``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lshbench.metrics.groups import count_below, leading_groups, leading_indices, ratio, retrieved, segment_sums
from lshbench.types import RankedBlock


@dataclass(frozen=True)
class Definition:
    """One published definition: the mean of a per-query measure over some queries.

    Attributes:
        measure: the per-query measure (:func:`lshbench.metrics.measures.measure`); ``{k}`` and ``{r}`` as in
        the name.
        description: one line.
        published_by: code that reports it; empty if none is known to.
        over: the queries that the mean counts: ``all``; ``nonempty``, those with any candidate; ``hits``,
            those with a relevant item in the top k; ``within``, those with any item within the radius.
        order: ``expected`` over ties, or the ``stable`` order (distance, then gallery row).
    """

    measure: str
    description: str
    published_by: tuple[str, ...] = ()
    over: Literal["all", "nonempty", "hits", "within"] = "all"
    order: Literal["expected", "stable"] = "expected"

    @property
    def formula(self) -> str:
        """Formula in words, with how ties are ordered where that decides the value."""
        return self.description + ("; ties in gallery order" if self.order == "stable" else "")


DEFINITIONS: dict[str, Definition] = {
    "mAP@all/trec": Definition(
        "AP",
        "precision at each relevant item, divided by all relevant items of the gallery",
        ("trec_eval map", "ranx", "BEIR, MTEB"),
    ),
    "mAP@{k}/trec": Definition(
        "AP@{k}/trec",
        "precision at each relevant item of the top k, divided by all relevant items of the gallery",
        ("trec_eval map_cut",),
    ),
    "mAP@{k}/min": Definition(
        "AP@{k}/min",
        "precision at each relevant item of the top k, divided by min(relevant items, k)",
        ("a common variant in information retrieval",),
    ),
    "mAP@{k}/hits": Definition(
        "AP@{k}/hits",
        "precision at each relevant item of the top k, divided by the relevant items in the top k",
        ("DeepHash-pytorch", "OrthoHash", "FIRe", "torchmetrics", "OML"),
        order="stable",
    ),
    "mAP@{k}/hits_dropped": Definition(
        "AP@{k}/hits",
        "as mAP@k/hits, but queries without a relevant item in the top k are left out of the mean",
        ("HashNet", "thulab/DeepHash"),
        over="hits",
        order="stable",
    ),
    "mAP@{k}/hits_nonempty": Definition(
        "AP@{k}/hits",
        "as mAP@k/hits, but queries without any candidate are left out of the mean",
        ("image retrieval studies over LSH tables",),
        over="nonempty",
        order="stable",
    ),
    "mAP@candidates/hits": Definition(
        "AP@candidates/hits",
        "precision at each relevant item among all candidates, divided by their number",
        ("DeepHash-pytorch, OrthoHash and FIRe '@all' (topk=-1, @54000, @59000)", "studies over LSH tables"),
    ),
    "mAP@all/trapezoid": Definition(
        "AP@all/trapezoid",
        "mean of the precisions before and at each relevant item, divided by all relevant items",
        ("Oxford, Paris, revisited Oxford and Paris (revisitop)",),
    ),
    "mAP@all/asymmetric_hamming": Definition(
        "AP/asymmetric_hamming",
        "as mAP@all/trec, by the L1 distance of the query's projections, squashed by a sigmoid, to the gallery's bits",
        ("hashing-baseline",),
    ),
    "P@{k}": Definition("P@{k}", "relevant items in the top k, divided by k", ("most code",)),
    "P@{k}/nonempty": Definition(
        "P@{k}",
        "as P@k, but queries without any candidate are left out of the mean",
        ("image retrieval studies over LSH tables",),
        over="nonempty",
    ),
    "P@{k}/short_relevant": Definition(
        "P@{k}/short_relevant", "relevant items in the top k, divided by min(k, relevant items)", ("OML",)
    ),
    "P@{k}/short_ranked": Definition(
        "P@{k}/short_ranked", "relevant items in the top k, divided by min(k, candidates)", ("short result lists",)
    ),
    "P@{k}/short_last": Definition(
        "P@{k}/short_last",
        "relevant items in the top k, divided by min(k, rank of the last relevant item)",
        ("revisited Oxford and Paris (revisitop)",),
        order="stable",
    ),
    "precision@radius{r}": Definition(
        "precision@radius{r}",
        "relevant items within the Hamming radius, divided by the items within it; 0 where there are none",
        ("thulab/DeepHash",),
    ),
    "precision@radius{r}/nonempty": Definition(
        "precision@radius{r}",
        "as precision@radius, but queries with nothing within the radius are left out of the mean",
        over="within",
    ),
    "recall@radius{r}": Definition(
        "recall@radius{r}", "relevant items within the Hamming radius, divided by all relevant items"
    ),
    "empty@radius{r}": Definition("empty@radius{r}", "share of queries with nothing within the Hamming radius"),
}
"""Definitions by their key in ``metrics.json``; ``{k}`` is a rank, ``{r}`` a radius."""


def template(key: str) -> str:
    """Return a key with its rank or radius taken out: ``mAP@1000/hits`` gives ``mAP@{k}/hits``."""
    return re.sub(r"radius\d+", "radius{r}", re.sub(r"@\d+", "@{k}", key))


def definition_of(key: str) -> Definition:
    """Return the definition behind a key of ``metrics.json``, such as ``mAP@1000/hits``."""
    return DEFINITIONS[template(key)]


def number_in(key: str) -> int | None:
    """Return the rank or radius in a key, or None."""
    found = re.search(r"(?:@|radius)(\d+)", key)
    return int(found[1]) if found else None


def hits_average_precision(block: RankedBlock, cutoffs: Sequence[int]) -> list[np.ndarray]:
    """Return AP@k divided by the relevant items found within the top k, on the stable order.

    0 for a query without a hit; NaN throughout if the block neither has positions nor is free of ties.

    Returns:
        float64 ``(q,)`` for each cut-off.
    """
    positions = stable_positions(block, max(cutoffs))
    if positions is None:
        return [np.full(len(block), np.nan) for _ in cutoffs]
    ranks, offsets = positions
    start = offsets[:-1]
    order = np.arange(1, len(ranks) + 1) - np.repeat(start, np.diff(offsets))
    precision = order / ranks
    result = []
    for cutoff in cutoffs:
        hits = count_below(ranks, offsets, np.full(len(block), cutoff + 1))
        result.append(ratio(segment_sums(precision, start, start + hits), hits))
    return result


def short_last_precision(block: RankedBlock, cutoff: int) -> np.ndarray:
    """Return hits in the top k divided by min(k, rank of the last relevant item), on the stable order.

    0 for a query that retrieves no relevant item; NaN throughout if the stable order isn't known.
    """
    positions = stable_positions(block, cutoff)
    if positions is None:
        return np.full(len(block), np.nan)
    ranks, offsets = positions
    hits = np.diff(offsets)
    # Ranks stop at k.  The last relevant item is among them only if all that were retrieved are.
    last = np.full(len(block), cutoff)
    complete = (hits == retrieved(block)) & (hits > 0)
    last[complete] = ranks[offsets[1:][complete] - 1]
    return ratio(hits, last)


def stable_positions(block: RankedBlock, cutoff: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the ranks, from 1 to the cut-off, of relevant items in the stable order, and their offsets.

    Returns:
        integers, ascending within a query, and int64 ``(q + 1,)``; None where there are ties but no
        positions.

    Raises:
        ValueError: the block's positions stop before the cut-off.
    """
    if block.positions is not None and block.position_offsets is not None:
        if block.position_limit is not None and block.position_limit < cutoff:
            raise ValueError(f"positions stop at rank {block.position_limit}, before the cut-off {cutoff}")
        limits = np.full(len(block), cutoff + 1)
        counts = count_below(block.positions, block.position_offsets, limits)
        rows, offsets = leading_indices(block.position_offsets, counts)
        return block.positions[rows], offsets
    head = leading_groups(block, cutoff)
    if np.max(head.size, initial=1) > 1:
        return None
    return head.before + 1, head.offsets
