"""The losses of hashing by PermGNN and FourierHashNet, and those of their variants, as functions of tensors.

Codes are ``tanh`` outputs in (-1, 1), ``(n, bits)``.  Each function returns a scalar tensor, not weighted.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# --- PermGNN hashing (Roy et al., AAAI 2021, arXiv 2012.08974), section 4: sums, which the caller normalises


def item_balance(codes: Tensor) -> Tensor:
    """Return D1 = sum_i | sum_h b_ih |: each item should have as many bits set as not."""
    return codes.sum(1).abs().sum()


def fence(codes: Tensor) -> Tensor:
    """Return D2 = sum_i sum_h | |b_ih| - 1 |: outputs should not sit on the fence between -1 and 1."""
    return (codes.abs() - 1).abs().sum()


def collision(codes: Tensor, apart: Tensor) -> Tensor:
    """Return D3 = sum over ordered pairs that should be apart of | <b_i, b_j> |.

    Args:
        codes: ``(n, bits)``.
        apart: bool ``(n, n)``, true for pairs of non-neighbours; the diagonal is ignored.
    """
    products = (codes @ codes.T).abs().masked_fill(~apart, 0)
    return products.sum() - products.diagonal().sum()


def permgnn(codes: Tensor, apart: Tensor, balance_weight: float, fence_weight: float) -> dict[str, Tensor]:
    """Return the published objective's three terms: weights add up to 1, sums are divided by n, n and n^2."""
    count = len(codes)
    return {
        "balance": balance_weight / count * item_balance(codes),
        "fence": fence_weight / count * fence(codes),
        "collision": (1 - balance_weight - fence_weight) / count**2 * collision(codes, apart),
    }


# --- FourierHashNet (Roy et al., NeurIPS 2023): the reduction of the map, on cosines of query and gallery ---


def cosine_cross_entropy(cosines: Tensor, relevant: Tensor) -> Tensor:
    """Return the cross-entropy of (cos + 1) / 2 (BCE3 in the reference implementation, its default)."""
    # Rounding can push a cosine past 1, where the logarithm ends.
    return functional.binary_cross_entropy(((cosines + 1) / 2).clamp(0, 1), relevant)


def cosine_squares(cosines: Tensor, relevant: Tensor) -> Tensor:
    """Return the mean squared difference from +1 for relevant pairs and -1 for others."""
    return ((cosines - (2 * relevant - 1)) ** 2).mean()


def pairwise_ranking(cosines: Tensor, relevant: Tensor, margin: float = 0.05) -> Tensor:
    """Return the mean of max(0, margin + irrelevant - relevant) over all such pairs of a batch of pairs, or 0."""
    wanted = relevant > 0.5
    excess = functional.relu(margin + cosines[~wanted][None, :] - cosines[wanted][:, None])
    return excess.sum() / max(excess.numel(), 1)


# --- FourierHashNet: the hash layer -------------------------------------------------------------------------


def mean_fence(codes: Tensor) -> Tensor:
    """Return the fence term divided by n * bits."""
    return fence(codes) / codes.numel()


def bit_balance(codes: Tensor) -> Tensor:
    """Return sum_h | sum_i b_ih | / (n bits): each bit should be set for half of the items."""
    return codes.sum(0).abs().sum() / codes.numel()


def decorrelation(codes: Tensor) -> Tensor:
    """Return the absolute mean of all entries of B^T B, its diagonal set to 0."""
    products = codes.T @ codes
    return (products.sum() - products.diagonal().sum()).abs() / products.numel()


def query_agnostic(codes: Tensor, fence_weight: float, decorrelation_weight: float) -> dict[str, Tensor]:
    """Return the published query-agnostic objective's terms for a batch of both sides' codes."""
    return {
        "fence": fence_weight * mean_fence(codes),
        "decorrelation": decorrelation_weight * decorrelation(codes),
        "balance": (1 - fence_weight - decorrelation_weight) * bit_balance(codes),
    }


def code_ranking(query: Tensor, relevant: Tensor, others: Tensor, margin: float = 1.0) -> Tensor:
    """Return the mean of max(0, margin + <q, c-> - <q, c+>) over relevant and other gallery items.

    Args:
        query: one code, ``(bits,)``.
        relevant, others: gallery codes, ``(p, bits)`` and ``(n, bits)``.
        margin: in units of the product, of which a bit is worth 2.
    """
    return functional.relu(margin + (others @ query)[None, :] - (relevant @ query)[:, None]).mean()


def query_aware(
    query: Tensor,
    gallery: Tensor,
    relevant: Tensor,
    fence_weight: float,
    ranking_weight: float,
    margin: float = 1.0,
) -> dict[str, Tensor]:
    """Return the published query-aware objective's terms for one query against gallery items.

    The query's code counts once for each gallery item in balance and fence, as published.

    Args:
        query: ``(bits,)``.
        gallery: ``(n, bits)``.
        relevant: bool ``(n,)``.
        fence_weight, ranking_weight: balance takes the rest up to 1.
        margin: of the ranking term.
    """
    stacked = torch.cat([query.expand(len(gallery), -1), gallery])
    return {
        "ranking": ranking_weight * code_ranking(query, gallery[relevant], gallery[~relevant], margin),
        "fence": fence_weight * mean_fence(stacked),
        "balance": (1 - fence_weight - ranking_weight) * bit_balance(stacked),
    }


# --- Terms of the variants ----------------------------------------------------------------------------------


def softer_temperature(bits: int) -> float:
    """Return the temperature of :func:`contrastive` for neighbours in place of labels, in units of ``bits ** -0.5``.

    Neighbours are less certain than labels, and fewer than the items of a class: a softer ranking draws together what
    is near them, too.  Few bits would leave no order at as many units.
    """
    return min(3.0, 0.5 * bits**0.5)


def stronger_balance(bits: int) -> float:
    """Return the weight of :func:`bit_balance` against that of :func:`contrastive` for neighbours in place of labels.

    What neighbours leave open, balance decides: bits that halve the items tell larger groups apart.  Sixteen bits or
    less have none to spare for it.
    """
    return min(4.0, max(0.05, (bits - 16) / 4))


def contrastive(queries: Tensor, gallery: Tensor, relevant: Tensor, temperature: float, paired: bool = False) -> Tensor:
    """Return the multi-positive softmax cross-entropy of "Supervised contrastive learning".

    (L_out of Khosla et al. 2020, arXiv 2004.11362.)

    Args:
        queries: ``(n, bits)`` codes, each to find its relevant ones among ``gallery``, ``(g, bits)``.
        gallery: the codes of the batch's items as gallery items.
        relevant: float or bool ``(n, g)``, weights of the items to be found; rows without any count as 0.
        temperature: of the products divided by bits, in [-1, 1].
        paired: whether row i of the gallery is another item than query i (its neighbour), not the same one.
    """
    logits = queries @ gallery.T / (queries.shape[1] * temperature)
    if not paired:
        # An item must not find itself: its product with itself says nothing, and is the largest.
        itself = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
        logits = logits.masked_fill(itself, -1e4)
        relevant = relevant.masked_fill(itself, 0)
    weights = relevant.to(logits.dtype)
    found = (logits.log_softmax(1) * weights).sum(1)
    return -(found / weights.sum(1).clamp(min=1e-12)).mean()


def geometry(queries: Tensor, gallery: Tensor, features: Tensor, temperature: float, scale: float) -> Tensor:
    """Return the cross-entropy of code products against the cosines of the features that the codes are of.

    Each item ranks the others of the batch by a softmax of cosines; its code should rank them alike (as in
    relational distillation), so that codes keep what the features know beyond labels.

    Args:
        queries, gallery: codes of the same n items, ``(n, bits)``.
        features: ``(n, d)``.
        temperature: of the products divided by bits.
        scale: temperature of the cosines.
    """
    unit = functional.normalize(features)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    targets = (unit @ unit.T / scale).masked_fill(itself, -1e4).softmax(1)
    logits = (queries @ gallery.T / (queries.shape[1] * temperature)).masked_fill(itself, -1e4)
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def class_softmax(projections: Tensor, class_codes: Tensor, targets: Tensor, margin: float, scale: float) -> Tensor:
    """Return the cross-entropy of scaled cosines with one code per class.

    (Hoe et al. 2021, "One loss for all: deep hashing with a single cosine similarity based learning
    objective", arXiv 2109.14449.)

    Args:
        projections: ``(n, bits)``.
        class_codes: ``(classes, bits)``.
        targets: class probabilities, ``(n, classes)``.
        margin: taken from the cosine with the code of each class that is a target.
        scale: of the cosines.
    """
    cosines = functional.normalize(projections) @ functional.normalize(class_codes).T
    return functional.cross_entropy(scale * (cosines - margin * (targets > 0)), targets)
