"""Room for the groups of tied items that a kernel finds in complete rankings, and their :class:`RankedBlock`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from lshbench.kernels.cosine import close_gaps
from lshbench.types import RankedBlock


@dataclass(frozen=True)
class GroupRoom:
    """Arrays that a kernel fills, with room for a group for each relevant item.

    Attributes:
        slots: int64 ``(q + 1,)``; query ``i`` has room at ``slots[i]:slots[i + 1]``.
        counts: int64 ``(q,)``, how many groups each query turned out to have.
        groups: int64 ``(4, slots[-1])``: ``before``, ``relevant_before``, ``size`` and ``relevant`` of each.
        positions: int32 ``(slots[-1],)``, of the relevant items; empty where they are not asked for.
    """

    slots: np.ndarray
    counts: np.ndarray
    groups: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, totals: np.ndarray, with_positions: bool) -> Self:
        """Return room for queries with so many relevant items, int64 ``(q,)``."""
        slots = np.concatenate([[0], np.cumsum(totals)])
        positions = np.empty(slots[-1] if with_positions else 0, np.int32)
        return cls(slots, np.empty(len(totals), np.int64), np.empty((4, slots[-1]), np.int64), positions)

    def block(self, totals: np.ndarray, with_positions: bool, items: int) -> RankedBlock:
        """Return the filled rankings of all of so many items; the arguments of :meth:`of` again."""
        offsets, groups = np.concatenate([[0], np.cumsum(self.counts)]), self.groups
        if offsets[-1] < self.slots[-1]:  # some relevant items tie with one another
            close_gaps(groups, self.slots, offsets)
            groups = groups[:, : offsets[-1]]
        return RankedBlock(
            offsets=offsets,
            before=groups[0],
            relevant_before=groups[1],
            size=groups[2],
            relevant=groups[3],
            total_relevant=totals,
            ranked=np.full(len(totals), items, np.int64),
            positions=self.positions if with_positions else None,
            position_offsets=self.slots if with_positions else None,
        )
