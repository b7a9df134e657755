"""Labels and relevance in the form that kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numba import prange

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Int32Vector, UInt64Matrix
from lshbench.types import Relevance


class Labels(NamedTuple):
    """Labels of queries and gallery, as numbers or, where items may have several, as bit masks; the other is empty."""

    queries: Int32Vector  # (q,); empty where items may have several labels
    gallery: Int32Vector  # (n,), likewise
    query_masks: UInt64Matrix  # (q, words); (q, 0) where each item has one label
    gallery_masks: UInt64Matrix  # (words, n), likewise (0, n)


@dataclass(frozen=True)
class LabelTable:
    """Labels in the form that kernels read, and which gallery items they make relevant to a query."""

    labels: Labels

    @classmethod
    def from_relevance(cls, relevance: Relevance) -> LabelTable:
        """Return the table of single or multiple labels."""
        queries, gallery = relevance.queries, relevance.gallery
        if queries.ndim == 1:
            none = np.empty((len(queries), 0), np.uint64), np.empty((0, len(gallery)), np.uint64)
            return cls(Labels(*_small_numbers(queries, gallery), *none))
        if queries.shape[1] != gallery.shape[1]:
            raise ValueError(f"queries have {queries.shape[1]} label columns, the gallery {gallery.shape[1]}")
        masks = _masks(queries), np.ascontiguousarray(_masks(gallery).T)
        return cls(Labels(np.empty(0, np.int32), np.empty(0, np.int32), *masks))

    def of_queries(self, start: int, stop: int) -> Labels:
        """Return the labels of queries ``start`` to ``stop`` and of the gallery."""
        queries, gallery, query_masks, gallery_masks = self.labels
        return Labels(queries[start:stop], gallery, query_masks[start:stop], gallery_masks)

    @property
    def multiple(self) -> bool:
        """Whether items may have several labels."""
        return self.labels.query_masks.shape[1] > 0

    @cached_property
    def order(self) -> np.ndarray:
        """Gallery rows by label, rows ascending within a label: int64 ``(n,)``.  For single labels."""
        labels = self.labels.gallery
        if labels.max(initial=0) < 1 << 16:  # none is negative
            labels = labels.astype(np.uint16)  # which NumPy sorts by radix
        return np.argsort(labels, kind="stable")

    @cached_property
    def slices(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each query's relevant items start and stop in :attr:`order`: int64 ``(q,)`` each."""
        ordered = self.labels.gallery[self.order]
        return tuple(np.searchsorted(ordered, self.labels.queries, side) for side in ("left", "right"))  # type: ignore

    @cached_property
    def totals(self) -> np.ndarray:
        """How many gallery items are relevant to each query: int64 ``(q,)``."""
        if not self.multiple:
            starts, stops = self.slices
            return stops - starts
        masks, inverse = np.unique(self.labels.query_masks, axis=0, return_inverse=True)
        counts = np.empty(len(masks), np.int64)
        _count_sharing(masks, self.labels.gallery_masks, counts)
        return counts[inverse.reshape(-1)]


def _small_numbers(queries: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels renumbered as int32, equal labels as equal numbers."""
    sides = [side for side in (queries, gallery) if len(side)]
    low = min((int(side.min()) for side in sides), default=0)
    if max((int(side.max()) for side in sides), default=0) - low < 1 << 31:
        return (queries - low).astype(np.int32), (gallery - low).astype(np.int32)
    numbers = np.unique(np.concatenate([queries, gallery]), return_inverse=True)[1].reshape(-1).astype(np.int32)
    return numbers[: len(queries)], numbers[len(queries) :]


def _masks(labels: np.ndarray) -> np.ndarray:
    """Return bool ``(n, classes)`` as uint64 ``(n, max(1, ceil(classes / 64)))``."""
    words = max(1, (labels.shape[1] + 63) // 64)
    padded = np.zeros((len(labels), 8 * words), np.uint8)
    packed = np.packbits(labels.astype(bool), axis=1)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


@kernel
def share_label(query_mask: np.ndarray, gallery_masks: np.ndarray, item: int) -> bool:
    """Return whether a gallery item has one of the query's labels."""
    common = np.uint64(0)
    for word in range(gallery_masks.shape[0]):
        common |= query_mask[word] & gallery_masks[word, item]
    return common != np.uint64(0)


@kernel
def is_relevant(labels: Labels, query: int, row: int) -> bool:
    """Return whether a gallery row is relevant to a query."""
    if labels.gallery_masks.shape[0] == 0:
        return labels.gallery[row] == labels.queries[query]
    return share_label(labels.query_masks[query], labels.gallery_masks, row)


@kernel
def mark_relevant(labels: Labels, query: int, start: int, packs: int, bit: int, distances: np.ndarray) -> None:
    """Set a bit in the lanes of relevant items, in the layout of :func:`lshbench.kernels.words.packed_distances`."""
    gallery_masks = labels.gallery_masks
    up = np.uint64(bit)
    stop = start + 64 * packs
    if gallery_masks.shape[0] == 0:
        label = labels.queries[query]
        numbers = labels.gallery[start:stop]
        for pack in range(packs):
            for j in range(16):
                item = 64 * pack + j
                marks = (
                    np.uint64(numbers[item] == label)
                    | np.uint64(numbers[item + 16] == label) << np.uint64(16)
                    | np.uint64(numbers[item + 32] == label) << np.uint64(32)
                    | np.uint64(numbers[item + 48] == label) << np.uint64(48)
                )
                distances[16 * pack + j] |= marks << up
    elif gallery_masks.shape[0] == 1:
        mask = labels.query_masks[query, 0]
        masks = gallery_masks[0, start:stop]
        none = np.uint64(0)
        for pack in range(packs):
            for j in range(16):
                item = 64 * pack + j
                marks = (
                    np.uint64(mask & masks[item] != none)
                    | np.uint64(mask & masks[item + 16] != none) << np.uint64(16)
                    | np.uint64(mask & masks[item + 32] != none) << np.uint64(32)
                    | np.uint64(mask & masks[item + 48] != none) << np.uint64(48)
                )
                distances[16 * pack + j] |= marks << up
    else:
        query_mask = labels.query_masks[query]
        for pack in range(packs):
            for item in range(64):
                mark = np.uint64(share_label(query_mask, gallery_masks, start + 64 * pack + item))
                distances[16 * pack + (item & 15)] |= mark << np.uint64(16 * (item >> 4) + bit)


@kernel(parallel=True)
def _count_sharing(query_masks: np.ndarray, gallery_masks: np.ndarray, counts: np.ndarray) -> None:
    words = gallery_masks.shape[0]
    none = np.uint64(0)
    for query in prange(len(query_masks)):
        count = 0
        if words == 1:
            mask = query_masks[query, 0]
            for other in gallery_masks[0]:
                count += mask & other != none
        elif words == 2:
            first, second = query_masks[query, 0], query_masks[query, 1]
            for item in range(gallery_masks.shape[1]):
                count += (first & gallery_masks[0, item] | second & gallery_masks[1, item]) != none
        else:
            for item in range(gallery_masks.shape[1]):
                count += share_label(query_masks[query], gallery_masks, item)
        counts[query] = count
