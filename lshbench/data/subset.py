"""Class-balanced subsets and held-out parts: functions of the labels and a seed alone."""

from __future__ import annotations

import numpy as np

from lshbench.types import is_unlabelled


def balanced_rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the rows of a class-balanced subset.

    Every class gives its first item (in an order drawn by the seed), then every class its second, and so on:
    classes differ by at most one, a class that runs out gives all it has and the others fill up, and a
    smaller subset is part of every larger one of the same seed.  An item with several labels counts for the
    rarest of them.

    Args:
        labels: int64 ``(n,)``, or bool ``(n, classes)``.
        count: items wanted; all are returned if there are no more.
        seed: decides which.

    Returns:
        Row numbers, int64, ascending.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    group, rank, order = _ranks(labels, seed)
    return np.sort(np.lexsort((order[group], rank))[:count])


def held_out_rows(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that stay and those held out: the same fraction of every class.

    At least one item of a class with two or more is held out, and at least one stays.

    Args:
        labels: int64 ``(n,)``, or bool ``(n, classes)``.
        fraction: the share held out, between 0 and 1.
        seed: decides which.

    Returns:
        Two arrays of row numbers, int64, ascending.
    """
    group, rank, order = _ranks(labels, seed)
    sizes = np.bincount(group, minlength=len(order))
    quota = np.minimum(np.maximum(np.round(fraction * sizes), 1), sizes - 1)
    held_out = rank < quota[group]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _ranks(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each row's group, its place in the group's drawn order, and the groups' drawn order."""
    if is_unlabelled(labels):
        keys = np.zeros(len(labels), np.int64)
    elif labels.ndim == 2:
        rarest_first = np.argsort(labels.sum(axis=0), kind="stable")
        rarest = rarest_first[labels[:, rarest_first].argmax(axis=1)]
        keys = np.where(labels.any(axis=1), rarest, -1)
    else:
        keys = labels
    _, group = np.unique(keys, return_inverse=True)
    generator = np.random.default_rng([seed, 0x5B5E7])
    order = generator.permutation(group.max(initial=-1) + 1)
    drawn = generator.permutation(len(group))
    by_group = drawn[np.argsort(group[drawn], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(group))])
    rank = np.empty(len(group), np.int64)
    rank[by_group] = np.arange(len(group)) - starts[group[by_group]]
    return group, rank, order
