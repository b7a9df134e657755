"""Retrieval quality on a validation part, computed where its projections are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.metrics.average_precision import average_precision
from lshbench.training.data import TrainingData
from lshbench.types import RankedBlock, Side

CELLS = 2_000_000
"""Query-gallery pairs worked on at a time: few enough to stay in a cache."""

VALIDATION_ROWS = 4_096
"""Items encoded at a time."""

NEAREST = 100
"""Gallery items that count as relevant to a validation query where there are no labels."""

Relation = Callable[[slice], Tensor]
"""Which gallery items are relevant to a run of queries, bool ``(q, n)``."""


LabelPairs = Callable[[Tensor, Tensor], Tensor]
"""Which pairs of queries and gallery items are relevant by labels: ``(n,)`` and ``(m,)`` to bool ``(n, m)``."""


def same_labels(first: Tensor, second: Tensor) -> Tensor:
    """Return which pairs share a label, bool ``(n, m)``; labels int64 ``(n,)`` or bool ``(n, classes)``."""
    if first.ndim == 1:
        return first[:, None] == second[None, :]
    return first.float() @ second.float().T > 0


def all_labels(queries: Tensor, gallery: Tensor) -> Tensor:
    """Return which gallery items have all of a query's labels, bool ``(n, m)``; none has those of a query without any.

    Of single labels, int64 ``(n,)`` and ``(m,)``, it is :func:`same_labels`.
    """
    if queries.ndim == 1:
        return same_labels(queries, gallery)
    missing = queries.float() @ (~gallery).float().T
    return (missing == 0) & queries.any(1)[:, None]


LABEL_PAIRS: dict[str, LabelPairs] = {"shared": same_labels, "subset": all_labels}
"""The pairs that ``relevance.kind`` calls relevant."""


def by_labels(queries: Tensor, gallery: Tensor, pairs: LabelPairs = same_labels) -> Relation:
    """Items are relevant as ``pairs`` says; labels int64 ``(n,)`` or bool ``(n, classes)``."""
    return lambda rows: pairs(queries[rows], gallery)


def nearest_by_cosine(queries: Tensor, gallery: Tensor) -> Relation:
    """The :data:`NEAREST` gallery items by cosine are relevant; features ``(q, d)`` and ``(n, d)``.

    What methods that must not see labels are chosen by.
    """
    units = torch.nn.functional.normalize(gallery)
    count = min(NEAREST, len(units))
    nearest = torch.cat(
        [
            (torch.nn.functional.normalize(queries[rows]) @ units.T).topk(count, dim=1).indices
            for rows in _blocks(len(queries), len(units))
        ]
        or [torch.empty((0, count), dtype=torch.int64, device=gallery.device)]
    )

    def relation(rows: slice) -> Tensor:
        chosen = nearest[rows]
        return torch.zeros((len(chosen), len(units)), dtype=torch.bool, device=chosen.device).scatter_(1, chosen, True)

    return relation


def hamming_quality(queries: Tensor, gallery: Tensor, relevant: Relation) -> float:
    """Return the expected mAP of ranking by Hamming distance.

    Args:
        queries, gallery: projections ``(q, bits)`` and ``(n, bits)``, whose signs are the bits.
        relevant: which gallery items answer which query.
    """
    bits = queries.shape[1]
    signs = (gallery >= 0).float().mul_(2).sub_(1)
    total = 0.0
    for rows in _blocks(len(queries), len(gallery) + 2 * bits + 2):
        block = (queries[rows] >= 0).float().mul_(2).sub_(1)
        # One histogram: a query's cells go by twice the distance, which is bits minus the product, plus 1 if relevant.
        keys = (block @ signs.T).neg_().add_(bits).add_(relevant(rows)).int()
        keys += torch.arange(len(block), dtype=torch.int32, device=keys.device)[:, None] * (2 * bits + 2)
        counts = torch.bincount(keys.flatten(), minlength=len(block) * (2 * bits + 2))
        split = counts.view(len(block), bits + 1, 2).cpu().numpy()
        total += float(average_precision(ranked(split.sum(2), split[:, :, 1])).expected.sum())
    return total / max(len(queries), 1)


def cosine_quality(queries: Tensor, gallery: Tensor, relevant: Relation) -> float:
    """Return the mAP of ranking by cosine; arguments as for :func:`hamming_quality`."""
    units = torch.nn.functional.normalize(gallery)
    total = 0.0
    for rows in _blocks(len(queries), len(gallery)):
        order = (torch.nn.functional.normalize(queries[rows]) @ units.T).argsort(dim=1, descending=True, stable=True)
        # In float64 on the processor: not every device has it.
        hits = relevant(rows).gather(1, order).cpu().double()
        ranks = torch.arange(1, len(units) + 1)
        total += float(((hits.cumsum(1) / ranks * hits).sum(1) / hits.sum(1).clamp(min=1)).sum())
    return total / max(len(queries), 1)


def _blocks(queries: int, width: int) -> Iterator[slice]:
    step = max(1, CELLS // max(width, 1))
    for start in range(0, queries, step):
        yield slice(start, start + step)


def ranked(sizes: np.ndarray, hits: np.ndarray) -> RankedBlock:
    """Return the rankings of histograms over distances, int64 ``(q, bits + 1)``: all items, and relevant
    ones.
    """
    query, group = np.nonzero(hits)
    return RankedBlock(
        offsets=np.concatenate([[0], np.cumsum((hits > 0).sum(1))]),
        before=(np.cumsum(sizes, axis=1) - sizes)[query, group],
        relevant_before=(np.cumsum(hits, axis=1) - hits)[query, group],
        size=sizes[query, group],
        relevant=hits[query, group],
        total_relevant=hits.sum(1),
        ranked=sizes.sum(1),
    )


class Validation:
    """Retrieval quality of a training set's validation part.

    Args:
        data: the training set.
        encode: features to projections.
        seed: decides what is searched.
        ranking: by Hamming distances of signs, or by cosines of ``encode``'s outputs.
        pairs: which are relevant by labels.
    """

    def __init__(
        self,
        data: TrainingData,
        encode: Callable[[Tensor, Side], Tensor],
        seed: int,
        ranking: Literal["hamming", "cosine"],
        pairs: LabelPairs = same_labels,
    ) -> None:
        self._data, self._encode = data, encode
        self._measure = hamming_quality if ranking == "hamming" else cosine_quality
        self._queries, self._gallery = data.validation_sample(seed)
        if data.supervision == "labels":
            self._relevant = by_labels(data.labels_of(self._queries), data.labels_of(self._gallery), pairs)
        else:
            self._relevant = nearest_by_cosine(data.features(self._queries), data.features(self._gallery))

    def quality(self, model: nn.Module) -> float | None:
        """Return the expected mAP, ``model`` being what ``encode`` uses; None if there is no validation part."""
        if not len(self._queries):
            return None
        model.eval()
        queries, gallery = self._project(self._queries, "query"), self._project(self._gallery, "gallery")
        return self._measure(queries, gallery, self._relevant)

    def _project(self, rows: np.ndarray, side: Side) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [
                    self._encode(self._data.features(rows[start : start + VALIDATION_ROWS]), side)
                    for start in range(0, len(rows), VALIDATION_ROWS)
                ]
            )
