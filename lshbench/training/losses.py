"""Losses and terms that several methods share, as functions of tensors.

Codes are ``tanh`` outputs in (-1, 1), ``(n, bits)``.  Each function but :func:`straight_through` returns a scalar
tensor, not weighted; gradients flow through its codes or projections.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def straight_through(codes: Tensor, source: Tensor) -> Tensor:
    """Return ``codes`` exactly, with the gradient going to ``source`` as if they were equal.

    (Bengio et al. 2013, arXiv 1308.3432.)

    Args:
        codes, source: of one shape, finite.
    """
    # source - source is 0 to the last bit, so codes stay -1 and 1; source + (codes - source) would round.
    return codes.detach() + (source - source.detach())


def fence(codes: Tensor) -> Tensor:
    """Return D2 = sum_i sum_h | |b_ih| - 1 |: outputs should not sit on the fence between -1 and 1."""
    return (codes.abs() - 1).abs().sum()


def mean_fence(codes: Tensor) -> Tensor:
    """Return the fence term divided by n * bits."""
    return fence(codes) / codes.numel()


def bit_balance(codes: Tensor) -> Tensor:
    """Return sum_h | sum_i b_ih | / (n bits): each bit should be set for half of the items."""
    return codes.sum(0).abs().sum() / codes.numel()


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
