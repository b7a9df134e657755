"""Retrieval quality on a validation part, computed where its projections are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lshbench.metrics.average_precision import average_precision
from lshbench.types import RankedBlock

CELLS = 8_000_000
"""Query-gallery pairs worked on at a time."""


def same_labels(first: Tensor, second: Tensor) -> Tensor:
    """Return which pairs share a label, bool ``(n, m)``; labels int64 ``(n,)`` or bool ``(n, classes)``."""
    if first.ndim == 1:
        return first[:, None] == second[None, :]
    return first.float() @ second.float().T > 0


def hamming_quality(queries: Tensor, gallery: Tensor, query_labels: Tensor, gallery_labels: Tensor) -> float:
    """Return the expected mAP of ranking by Hamming distance.

    Args:
        queries, gallery: projections ``(q, bits)`` and ``(n, bits)``, whose signs are the bits.
        query_labels, gallery_labels: int64 ``(q,)``, ``(n,)``, or bool ``(q, classes)``, ``(n, classes)``.
    """
    bits = queries.shape[1]
    signs = (gallery >= 0).float().mul_(2).sub_(1)
    total = 0.0
    for rows in _blocks(len(queries), len(gallery)):
        block = (queries[rows] >= 0).float().mul_(2).sub_(1)
        distances = (bits - block @ signs.T).mul_(0.5).round_().long()
        distances += torch.arange(len(block), device=distances.device)[:, None] * (bits + 1)
        cells = len(block) * (bits + 1)
        sizes = torch.bincount(distances.flatten(), minlength=cells).cpu().numpy()
        relevant = same_labels(query_labels[rows], gallery_labels)
        hits = torch.bincount(distances[relevant], minlength=cells).cpu().numpy()
        scores = average_precision(ranked(sizes.reshape(len(block), -1), hits.reshape(len(block), -1)))
        total += float(scores.expected.sum())
    return total / max(len(queries), 1)


def cosine_quality(queries: Tensor, gallery: Tensor, query_labels: Tensor, gallery_labels: Tensor) -> float:
    """Return the mAP of ranking by cosine; arguments as for :func:`hamming_quality`."""
    units = torch.nn.functional.normalize(gallery)
    total = 0.0
    for rows in _blocks(len(queries), len(gallery)):
        order = (torch.nn.functional.normalize(queries[rows]) @ units.T).argsort(dim=1, descending=True, stable=True)
        hits = same_labels(query_labels[rows], gallery_labels).gather(1, order).double()
        ranks = torch.arange(1, len(units) + 1, device=hits.device)
        total += float(((hits.cumsum(1) / ranks * hits).sum(1) / hits.sum(1).clamp(min=1)).sum())
    return total / max(len(queries), 1)


def _blocks(queries: int, gallery: int) -> Iterator[slice]:
    step = max(1, CELLS // max(gallery, 1))
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
