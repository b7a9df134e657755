"""One binary code per class, fixed before training, for methods that draw items to the code of their class.

Codes that are *near for similar classes* help where a query is taken for another class: that is most often one like its
own, so that what it finds next is more often right.
"""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import numpy as np
import torch
from scipy.linalg import hadamard
from torch import Tensor
from torch.nn import functional

from lshbench.training.constraints import one_of
from lshbench.training.data import TrainingData
from lshbench.training.heads import Standardise

log = logging.getLogger(__name__)

Targets = Annotated[Literal["hadamard", "bernoulli", "similar"], one_of("hadamard", "bernoulli", "similar")]

ITEMS = 50_000
"""Items that the similarity of classes is computed from at most."""

ROWS = 8192
"""Items that are standardised at a time."""

DECIMALS = 6
"""Of similarities: what depends on the order of adding up is rounded off, so that it hardly ever decides a code."""

FOLLOWED = 0.5
"""Share of classes' similarity that products of their codes, divided by bits, should have."""

NEAREST = 0.25
"""Share of bits that codes of two classes should differ in at least: nearer ones are taken for each other."""

NEARER = 4.0
"""What a product beyond that costs, in units of what a difference from its similarity costs."""

SWEEPS = 30
"""Times that each bit is gone over at most."""

PAIRS = 4e8
"""Pairs of classes that are looked at, for a bit each, at most, if that leaves one sweep: some ten seconds.

Of a thousand classes with 64 bits, six sweeps leave 2 % more of the sum than thirty.
"""

MOST_SIMILAR = 1000
"""Classes up to which codes follow their similarity: time and memory grow with the square of that number."""


def target_codes(targets: Targets, data: TrainingData, bits: int, seed: int) -> Tensor:
    """Return the class codes of a training set, -1 and 1, float32 ``(classes, bits)`` on its device."""
    if targets == "similar" and data.classes > MOST_SIMILAR:
        targets = "bernoulli"
        log.info(
            "%d class codes are drawn at random: up to %d follow the classes' similarity", data.classes, MOST_SIMILAR
        )
    similarity = class_similarity(data, seed) if targets == "similar" else None
    return class_codes(targets, data.classes, bits, seed, similarity).to(data.device)


def class_codes(targets: Targets, classes: int, bits: int, seed: int, similarity: np.ndarray | None = None) -> Tensor:
    """Return a code for each class, -1 and 1, float32 ``(classes, bits)``, decided by the arguments.

    Args:
        targets: ``hadamard`` as :func:`hadamard_codes`, or, where there are no such codes, and for ``bernoulli``,
            :func:`bernoulli_codes`; ``similar`` as :func:`similar_codes`, from these.
        classes: how many.
        bits: length of the codes.
        seed: decides what is drawn.
        similarity: of classes, float64 ``(classes, classes)``; needed for ``similar``.

    Raises:
        ValueError: codes are to be near for similar classes, and no similarity is given.
    """
    generator = np.random.default_rng([seed, 7])
    codes = hadamard_codes(classes, bits, generator) if targets == "hadamard" else None
    if codes is None:
        if targets == "hadamard":
            log.info(
                "%d class codes of %d bits are drawn at random: Hadamard ones are made for bits that are a power of 2, "
                "and at most twice as many classes",
                classes,
                bits,
            )
        codes = bernoulli_codes(classes, bits, generator)
    if targets == "similar":
        if similarity is None:
            raise ValueError("class codes that follow a similarity need one")
        codes = similar_codes(codes, similarity)
    return torch.from_numpy(codes.astype(np.float32))


def hadamard_codes(classes: int, bits: int, generator: np.random.Generator) -> np.ndarray | None:
    """Return rows of a Hadamard matrix H, which differ in half of their bits; beyond ``bits`` rows of -H too.

    (CSQ, Yuan et al., CVPR 2020, algorithm 1.)  Rows are drawn, not taken from the top: the first rows of Sylvester's
    matrix repeat a few columns, so that most bits of a code would be copies.

    Returns:
        int8 ``(classes, bits)``; None where ``bits`` is no power of 2 or ``classes`` more than twice ``bits``.
    """
    if bits & (bits - 1) or classes > 2 * bits:
        return None
    matrix = hadamard(bits, dtype=np.int8)
    rows = matrix[generator.permutation(bits)[:classes]]
    if classes <= bits:
        return rows
    return np.concatenate([rows, -matrix[generator.permutation(bits)[: classes - bits]]])


def bernoulli_codes(classes: int, bits: int, generator: np.random.Generator) -> np.ndarray:
    """Return codes of fair coins, int8 ``(classes, bits)``, distinct as long as there are distinct codes.

    Classes beyond 2^bits take the codes of earlier ones, in turn.
    """
    wanted = min(classes, 2 ** min(bits, 62))
    codes = np.empty((0, bits), np.int8)
    while len(codes) < wanted:
        drawn = generator.integers(0, 2, (classes, bits), dtype=np.int8)
        codes = np.concatenate([codes, drawn])
        _, first = np.unique(np.packbits(codes, axis=1), axis=0, return_index=True)
        codes = codes[np.sort(first)]
    return 2 * codes[:wanted][np.arange(classes) % wanted] - 1


def class_similarity(data: TrainingData, seed: int) -> np.ndarray:
    """Return cosines of classes' mean standardised features, float64 ``(classes, classes)``.

    An item of several labels counts once for each.  A class without items is similar to none.

    Args:
        data: the training set, of which at most ``ITEMS`` items are taken.
        seed: decides which.
    """
    rows = np.random.default_rng([seed, 11]).permutation(len(data))[:ITEMS]
    x, y = (taken.cpu() for taken in data.take(rows))
    standardise = Standardise(data.inputs)
    standardise.learn(x.numpy())
    sums = torch.zeros(data.classes, data.inputs, dtype=torch.float64)
    for features, labels in zip(x.split(ROWS), y.split(ROWS), strict=True):
        sums += memberships(labels, data.classes).double().T @ standardise(features).double()
    means = functional.normalize(sums)  # lengths don't matter
    return (means @ means.T).numpy().round(DECIMALS)


def similar_codes(codes: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Return codes whose products follow the similarity of their classes, int8 ``(classes, bits)``.

    Bits of given codes are flipped one by one, bit after bit, where that brings the sum over pairs of

        (p - FOLLOWED s)^2 + NEARER max(0, p - (1 - 2 NEAREST))^2

    down, p being the codes' product divided by bits and s the classes' similarity, until no single flip does, or, with
    many classes, a few times.  (Products of codes fitted to similarities are those of Liu et al., Supervised hashing
    with kernels, CVPR 2012; the least distance is ours.)  With very few bits, similar classes may end on one code.

    Args:
        codes: -1 and 1, ``(classes, bits)``.
        similarity: -1 to 1, symmetric, float64 ``(classes, classes)``.
    """
    codes = codes.copy()
    bits = codes.shape[1]
    wanted = FOLLOWED * similarity

    def costs(products: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        return (products - wanted) ** 2 + NEARER * np.maximum(0, products - (1 - 2 * NEAREST)) ** 2

    products = codes.astype(np.float64) @ codes.T / bits
    for _ in range(min(SWEEPS, max(1, int(PAIRS / codes.size / len(codes))))):
        flips = 0
        for bit in codes.T:
            # What flipping one class's bit changes in each pair; both classes of a pair have the same.
            steps = np.multiply.outer(bit, bit) * (2 / bits)
            changes = costs(products - steps, wanted) - costs(products, wanted)
            np.fill_diagonal(changes, 0)
            totals = changes.sum(0)
            while totals.min() < -1e-9:
                flipped = int(totals.argmin())
                products[flipped] -= steps[flipped]
                products[flipped, flipped] = 1
                products[:, flipped] = products[flipped]
                bit[flipped] = -bit[flipped]
                steps[flipped] = -steps[flipped]
                steps[flipped, flipped] = 2 / bits
                steps[:, flipped] = steps[flipped]
                row = costs(products[flipped] - steps[flipped], wanted[flipped])
                row -= costs(products[flipped], wanted[flipped])
                row[flipped] = 0
                totals += row - changes[flipped]
                totals[flipped] = row.sum()
                changes[flipped] = changes[:, flipped] = row
                flips += 1
        if not flips:
            break
    return codes


def memberships(labels: Tensor, classes: int) -> Tensor:
    """Return which classes items have, float32 0 or 1, ``(n, classes)``.

    Args:
        labels: int64 ``(n,)`` or bool ``(n, classes)``.
        classes: how many there are.
    """
    return functional.one_hot(labels, classes).float() if labels.ndim == 1 else labels.float()


def class_shares(labels: Tensor, classes: int) -> Tensor:
    """Return items' classes in equal parts, which add up to 1, float32 ``(n, classes)``; zeros for an item without any.

    Args:
        labels, classes: as for :func:`memberships`.
    """
    return functional.normalize(memberships(labels, classes), p=1)


def item_codes(members: Tensor, codes: Tensor, ties: Tensor) -> Tensor:
    """Return the code of each item's class, or, of several, what most of them have in each bit, ``(n, bits)``.

    (CSQ, section 3.2: the centroid of the centers of an item's classes.)

    Args:
        members: float ``(n, classes)``, see :func:`memberships`.
        codes: -1 and 1, ``(classes, bits)``.
        ties: -1 and 1, ``(bits,)``, for bits that as many classes have set as not.
    """
    votes = members @ codes
    return torch.where(votes == 0, ties, torch.sign(votes))
