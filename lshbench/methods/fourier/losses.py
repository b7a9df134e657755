"""Losses of FourierHashNet (Roy et al., NeurIPS 2023) and of its variants, as functions of tensors.

Codes are ``tanh`` outputs in (-1, 1), ``(n, bits)``.  Each function returns scalar tensors; gradients flow through
codes and cosines.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lshbench.training.losses import bit_balance, mean_fence

# --- The encoders' stage, on cosines of query and gallery -----------------------------------------------------


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


# --- The hash layer's stage -------------------------------------------------------------------------------------


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


# --- The transfer variant ---------------------------------------------------------------------------------------


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


def joined(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return vectors of length 1 whose cosines are the weighted means of the cosines of two kinds of vectors.

    Args:
        first, second: ``(n, d)`` and ``(n, e)``, of the same items.
        share: of the first kind's cosines; the second's have the rest.
    """
    parts = functional.normalize(first) * share**0.5, functional.normalize(second) * (1 - share) ** 0.5
    return torch.cat(parts, dim=1)
