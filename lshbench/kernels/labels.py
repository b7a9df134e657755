"""Labels and relevance in the form that kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Int32Vector, Int64Vector, UInt64Matrix
from lshbench.kernels.threads import own_part, threaded_kernel
from lshbench.types import Listed, Relevance


class Labels(NamedTuple):
    """Labels of queries and gallery as numbers or, where items may have several, as bit masks; or lists of rows.

    What is not used is empty.
    """

    queries: Int32Vector  # (q,); empty where items may have several labels
    gallery: Int32Vector  # (n,), likewise
    query_masks: UInt64Matrix  # (q, words); (q, 0) where each item has one label
    gallery_masks: UInt64Matrix  # (words, n), likewise (0, n)
    inverted: int  # 1 where items are relevant that share no bit with the query's mask, else 0
    offsets: Int64Vector  # (q + 1,), where each query's listed rows begin; empty where labels decide
    rows: Int64Vector  # (p,), ascending within a query


@dataclass(frozen=True)
class LabelTable:
    """Labels in the form that kernels read, and which gallery items they make relevant to a query."""

    labels: Labels

    @classmethod
    def from_relevance(cls, relevance: Relevance) -> LabelTable:
        """Return the table of single or multiple labels; of lists, all rows that they name, whatever their grade."""
        queries, gallery = relevance.queries, relevance.gallery
        if relevance.by_lists:
            assert relevance.listed is not None
            return cls.of_listed(relevance.listed, len(gallery))
        none = np.empty(0, np.int64)
        if queries.ndim == 1:
            no_masks = np.empty((len(queries), 0), np.uint64), np.empty((0, len(gallery)), np.uint64)
            return cls(Labels(*_small_numbers(queries, gallery), *no_masks, 0, none, none))
        if queries.shape[1] != gallery.shape[1]:
            raise ValueError(f"queries have {queries.shape[1]} label columns, the gallery {gallery.shape[1]}")
        inverted = int(relevance.subset)
        if inverted:
            # An item has all of a query's labels if it lacks none: if they share no bit of what items lack.  All lack
            # the label that stands for a query without any.
            queries = np.concatenate([queries, ~queries.any(axis=1, keepdims=True)], axis=1)
            gallery = np.concatenate([~gallery, np.ones((len(gallery), 1), np.bool_)], axis=1)
        masks = _masks(queries), np.ascontiguousarray(_masks(gallery).T)
        return cls(Labels(np.empty(0, np.int32), np.empty(0, np.int32), *masks, inverted, none, none))

    @classmethod
    def of_listed(cls, listed: Listed, items: int) -> LabelTable:
        """Return the table of all rows that are listed, in a gallery of so many items."""
        none = np.empty(0, np.int32), np.empty(0, np.int32)
        no_masks = np.empty((len(listed), 0), np.uint64), np.empty((0, items), np.uint64)
        lists = np.ascontiguousarray(listed.offsets, np.int64), np.ascontiguousarray(listed.rows, np.int64)
        return cls(Labels(*none, *no_masks, 0, *lists))

    def of_queries(self, start: int, stop: int) -> Labels:
        """Return the labels or lists of queries ``start`` to ``stop``, and the labels of the gallery."""
        queries, gallery, query_masks, gallery_masks, inverted, offsets, rows = self.labels
        own = slice(start, stop)
        return Labels(queries[own], gallery, query_masks[own], gallery_masks, inverted, offsets[start : stop + 1], rows)

    @property
    def listed(self) -> bool:
        """Whether lists say which items are relevant."""
        return len(self.labels.offsets) > 0

    @property
    def multiple(self) -> bool:
        """Whether items may have several labels."""
        return self.labels.query_masks.shape[1] > 0

    @cached_property
    def order(self) -> np.ndarray:
        """Gallery rows by label, rows ascending within a label: int64 ``(n,)``; of lists, the rows.  Not for masks."""
        if self.listed:
            return self.labels.rows
        labels = self.labels.gallery
        if labels.max(initial=0) < 1 << 16:  # none is negative
            labels = labels.astype(np.uint16)  # which NumPy sorts by radix
        return np.argsort(labels, kind="stable")

    @cached_property
    def slices(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each query's relevant items start and stop in :attr:`order`: int64 ``(q,)`` each."""
        if self.listed:
            return self.labels.offsets[:-1], self.labels.offsets[1:]
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
        if self.labels.inverted:
            counts = self.labels.gallery_masks.shape[1] - counts
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


@kernel(inline="always")
def share_label(query_masks: np.ndarray, query: int, gallery_masks: np.ndarray, item: int) -> bool:
    """Return whether a gallery item has one of a query's labels."""
    common = np.uint64(0)
    for word in range(gallery_masks.shape[0]):
        common |= query_masks[query, word] & gallery_masks[word, item]
    return common != np.uint64(0)


@kernel(inline="always")
def find_listed(labels: Labels, query: int, row: int) -> int:
    """Return the place of a gallery row in all lists, or -1 if the query doesn't list it."""
    low, high = labels.offsets[query], labels.offsets[query + 1]
    while low < high:
        middle = (low + high) >> 1
        if labels.rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    if low < labels.offsets[query + 1] and labels.rows[low] == row:
        return int(low)
    return -1


@kernel(inline="always")
def is_relevant(labels: Labels, query: int, row: int) -> bool:
    """Return whether a gallery row is relevant to a query.

    It is compiled into its callers: in a call, references to all arrays of ``labels`` would be counted, which takes
    some 50 ns, where the answer mostly takes 1 to 8.
    """
    if labels.gallery_masks.shape[0] > 0:
        return share_label(labels.query_masks, query, labels.gallery_masks, row) != (labels.inverted != 0)
    if len(labels.offsets) > 0:
        return find_listed(labels, query, row) >= 0
    return labels.gallery[row] == labels.queries[query]


@kernel
def find_relevant(labels: Labels, query: int, rows: np.ndarray) -> None:
    """Fill ``rows``, as long as there are such rows, with those whose masks make them relevant to a query, ascending.

    Each row is written where the next relevant one belongs, which needs no branch that is hard to foresee.
    """
    masks = labels.gallery_masks
    none, inverted = np.uint64(0), labels.inverted
    found = 0
    if masks.shape[0] == 1:
        mask = labels.query_masks[query, 0]
        for row in range(masks.shape[1]):
            if found == len(rows):
                break
            rows[found] = row
            found += int(mask & masks[0, row] != none) ^ inverted
    elif masks.shape[0] == 2:
        first, second = labels.query_masks[query, 0], labels.query_masks[query, 1]
        for row in range(masks.shape[1]):
            if found == len(rows):
                break
            rows[found] = row
            found += int(first & masks[0, row] | second & masks[1, row] != none) ^ inverted
    else:
        for row in range(masks.shape[1]):
            if found == len(rows):
                break
            rows[found] = row
            found += int(share_label(labels.query_masks, query, masks, row)) ^ inverted


@kernel
def relevant_rows(
    labels: Labels, query: int, order: np.ndarray, starts: np.ndarray, count: int, memory: np.ndarray
) -> np.ndarray:
    """Return the rows relevant to a query, ascending.

    Args:
        order, starts: gallery rows by label, or as they are listed, and where each query's begin; not read where there
            are masks.
        count: how many such rows there are.
        memory: int64, at least as long, where there are masks; may be overwritten.
    """
    if labels.gallery_masks.shape[0] == 0:
        return order[starts[query] : starts[query] + count]
    rows = memory[:count]
    find_relevant(labels, query, rows)
    return rows


@kernel(inline="always")
def _lanes(first: bool, second: bool, third: bool, fourth: bool) -> np.uint64:
    """Return a word whose four lanes of 16 bits have their lowest bits set where the arguments are true."""
    return (
        np.uint64(first)
        | np.uint64(second) << np.uint64(16)
        | np.uint64(third) << np.uint64(32)
        | np.uint64(fourth) << np.uint64(48)
    )


@kernel
def mark_relevant(labels: Labels, query: int, start: int, packs: int, bit: int, distances: np.ndarray) -> None:
    """Set a bit in the lanes of relevant items, in the layout of :func:`lshbench.kernels.words.packed_distances`."""
    gallery_masks = labels.gallery_masks
    words = gallery_masks.shape[0]
    up = np.uint64(bit)
    none = np.uint64(0)
    stop = start + 64 * packs
    inverted = labels.inverted != 0
    flips = _lanes(inverted, inverted, inverted, inverted)
    if words == 0 and len(labels.offsets) > 0:
        _mark_listed(labels, query, start, stop, bit, distances)
    elif words == 0:
        label = labels.queries[query]
        numbers = labels.gallery[start:stop]
        for pack in range(packs):
            for j in range(16):
                i = 64 * pack + j
                marks = _lanes(
                    numbers[i] == label, numbers[i + 16] == label, numbers[i + 32] == label, numbers[i + 48] == label
                )
                distances[16 * pack + j] |= marks << up
    elif words == 1:
        mask = labels.query_masks[query, 0]
        masks = gallery_masks[0, start:stop]
        for pack in range(packs):
            for j in range(16):
                i = 64 * pack + j
                marks = _lanes(
                    mask & masks[i] != none,
                    mask & masks[i + 16] != none,
                    mask & masks[i + 32] != none,
                    mask & masks[i + 48] != none,
                )
                distances[16 * pack + j] |= (marks ^ flips) << up
    else:
        # Word by word over a pack's items: such loops are vectorised.
        query_masks = labels.query_masks
        common = np.empty(64, np.uint64)
        for pack in range(packs):
            first = start + 64 * pack
            common[:] = none
            for word in range(words):
                mask = query_masks[query, word]
                for j in range(64):
                    common[j] |= mask & gallery_masks[word, first + j]
            for j in range(16):
                marks = _lanes(
                    common[j] != none, common[j + 16] != none, common[j + 32] != none, common[j + 48] != none
                )
                distances[16 * pack + j] |= (marks ^ flips) << up


@kernel
def _mark_listed(labels: Labels, query: int, start: int, stop: int, bit: int, distances: np.ndarray) -> None:
    own = labels.rows[labels.offsets[query] : labels.offsets[query + 1]]
    for j in range(np.searchsorted(own, start), len(own)):
        if own[j] >= stop:
            break
        pack, item = (own[j] - start) >> 6, (own[j] - start) & 63
        distances[16 * pack + (item & 15)] |= np.uint64(1) << np.uint64(16 * (item >> 4) + bit)


@threaded_kernel
def _count_sharing(
    part: int, parts: int, query_masks: np.ndarray, gallery_masks: np.ndarray, counts: np.ndarray
) -> None:
    words = gallery_masks.shape[0]
    none = np.uint64(0)
    for query in own_part(len(query_masks), part, parts):
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
                count += share_label(query_masks, query, gallery_masks, item)
        counts[query] = count
