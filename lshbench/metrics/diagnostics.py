"""Diagnostics of codes: balance, correlation, entropy, buckets, quantisation loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from lshbench.types import Codes

CELLS = 1 << 22
"""Bits unpacked, or pairs compared, at a time: bounds the temporaries to some 50 MB."""

CORRELATION_WORK = 2 * 10**11
"""Multiplications that bit correlations may take; above, codes are sampled (64 bits: 48 million codes)."""


def diagnose(codes: Codes, embedding: np.ndarray | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Return all diagnostics of a set of codes, with the keys of :class:`lshbench.run_folder.metrics.CodeMetrics`.

    Args:
        codes: n binary codes.
        embedding: float ``(n, bits)``, the projections whose signs are the codes.
        seed: of the sample that bit correlations take where there are very many long codes.
    """
    if not len(codes):
        names = (
            "bit_balance",
            "bit_correlation",
            "entropy_bits",
            "code_entropy_bits",
            "buckets",
            "quantisation_loss",
        )
        return {"constant_bits": 0, "distinct_codes": 0, **dict.fromkeys(names)}
    ones, sizes = bit_counts(codes), bucket_sizes(codes)
    return {
        "bit_balance": bit_balance(ones, len(codes)),
        "bit_correlation": bit_correlation(codes, seed=seed),
        "constant_bits": int(((ones == 0) | (ones == len(codes))).sum()),
        "entropy_bits": bit_entropy(ones, len(codes)),
        "code_entropy_bits": code_entropy(sizes),
        "distinct_codes": len(sizes),
        "buckets": buckets(sizes),
        "quantisation_loss": None if embedding is None else quantisation_loss(embedding),
    }


def bit_counts(codes: Codes) -> np.ndarray:
    """Return for each bit how many codes have it set, int64 ``(bits,)``."""
    ones = np.zeros(codes.bits, np.int64)
    step = max(1, CELLS // codes.bits)
    for start in range(0, len(codes), step):
        ones += Codes(codes.packed[start : start + step], codes.bits).unpack().sum(axis=0, dtype=np.int64)
    return ones


def bit_balance(ones: np.ndarray, items: int) -> float:
    """Return the mean over bits of ``|2 p_j - 1|``: 0 is balanced, 1 is constant."""
    return float(np.mean(np.abs(2 * ones - items) / items))


def bit_entropy(ones: np.ndarray, items: int) -> float:
    """Return the sum of the bits' own entropies, in bits."""
    share = np.stack([ones, items - ones]) / items
    return float(-np.sum(share * np.log2(share, out=np.zeros_like(share), where=share > 0)))


def bit_correlation(codes: Codes, *, seed: int = 0) -> float | None:
    """Return the mean absolute Pearson correlation over all pairs of bits that both vary.

    A bit that is equal in all codes has no correlation, and its pairs are left out (``constant_bits`` counts
    it).  From :data:`CORRELATION_WORK` on, codes are sampled without replacement.

    Returns:
        None if fewer than two bits vary.
    """
    packed = codes.packed
    limit = max(1000, CORRELATION_WORK // codes.bits**2)
    if len(packed) > limit:
        packed = packed[np.sort(np.random.default_rng(seed).choice(len(packed), limit, replace=False))]
    items = len(packed)
    both = np.zeros((codes.bits, codes.bits))
    step = max(1, CELLS // codes.bits)  # at most 2**22 rows: their float32 counts are exact
    for start in range(0, items, step):
        bits = Codes(packed[start : start + step], codes.bits).unpack().astype(np.float32)
        both += bits.T @ bits
    ones = np.diag(both)
    varying = np.flatnonzero((ones > 0) & (ones < items))
    if len(varying) < 2:
        return None
    ones, both = ones[varying], both[np.ix_(varying, varying)]
    spread = np.sqrt(ones * (items - ones))
    correlation = np.abs(items * both - np.outer(ones, ones)) / np.outer(spread, spread)
    pairs = len(varying) * (len(varying) - 1)
    return float((correlation.sum() - np.trace(correlation)) / pairs)


def bucket_sizes(codes: Codes) -> np.ndarray:
    """Return how many items have each distinct code, int64, ascending."""
    width = codes.packed.shape[1]
    words = np.pad(codes.packed, ((0, 0), (0, -width % 8))).view(np.uint64)
    if words.shape[1] == 1:
        return np.sort(np.unique(words[:, 0], return_counts=True)[1])
    ordered = words[np.lexsort(words.T)]
    first = np.flatnonzero(np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)]))
    return np.sort(np.diff(np.append(first, len(words))))


def code_entropy(sizes: np.ndarray) -> float:
    """Return the entropy, in bits, of the distribution of items over buckets of the given sizes."""
    share = sizes / sizes.sum()
    return float(max(0.0, -np.sum(share * np.log2(share))))


def buckets(sizes: np.ndarray) -> dict[str, float]:
    """Return how unequal buckets are; ``sizes`` int64, ascending, all positive."""
    items, occupied = int(sizes.sum()), len(sizes)
    ranks = np.arange(1, occupied + 1)
    return {
        "occupied": occupied,
        "largest": int(sizes[-1]),
        "mean": items / occupied,
        "seen": float(np.sum(sizes.astype(np.float64) ** 2) / items),
        "singletons": int((sizes == 1).sum()),
        "gini": float(np.sum((2 * ranks - occupied - 1) * sizes) / (occupied * items)),
    }


def quantisation_loss(embedding: np.ndarray) -> float:
    """Return the mean squared difference between the embedding at unit root mean square and its signs.

    With s the root mean square, ``mean (z/s - sign z)^2 = 2 - 2 mean|z| / s``: 0 if all projections are equally large,
    0.40 if they are Gaussian.  (The sign of 0 is 1, as in the codes.)  An embedding of zeros loses 1.
    """
    squares = magnitudes = 0.0
    step = max(1, CELLS // max(embedding.shape[1], 1))
    for start in range(0, len(embedding), step):
        block = np.abs(embedding[start : start + step], dtype=np.float64)
        magnitudes += float(block.sum())
        squares += float(np.einsum("ij,ij->", block, block))
    if squares == 0:
        return 1.0
    return max(0.0, 2.0 - 2.0 * magnitudes / float(np.sqrt(squares * embedding.size)))
