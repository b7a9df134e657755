"""One binary code per class, fixed before training, for methods that draw items to the code of their class."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import numpy as np
import torch
from scipy.linalg import hadamard
from torch import Tensor
from torch.nn import functional

from lshbench.training.constraints import one_of

log = logging.getLogger(__name__)

Targets = Annotated[Literal["hadamard", "bernoulli"], one_of("hadamard", "bernoulli")]


def class_codes(targets: Targets, classes: int, bits: int, seed: int) -> Tensor:
    """Return a code for each class, -1 and 1, float32 ``(classes, bits)``, decided by the arguments.

    Args:
        targets: ``hadamard`` as :func:`hadamard_codes`, or, where there are no such codes, and for ``bernoulli``,
            :func:`bernoulli_codes`.
        classes: how many.
        bits: length of the codes.
        seed: decides what is drawn.
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


def memberships(labels: Tensor, classes: int) -> Tensor:
    """Return which classes items have, float32 0 or 1, ``(n, classes)``.

    Args:
        labels: int64 ``(n,)`` or bool ``(n, classes)``.
        classes: how many there are.
    """
    return functional.one_hot(labels, classes).float() if labels.ndim == 1 else labels.float()


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
