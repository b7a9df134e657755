"""The losses of the peers (bihalf, cibhash, csq, dpn, greedyhash, hashnet), as functions of tensors.

Projections are a head's outputs, float ``(n, bits)``; codes are -1 and 1, or ``tanh`` outputs between.  Each loss
returns a scalar tensor, not weighted; gradients flow through its projections or codes.  OrthoHash's is
:func:`lshbench.training.losses.class_softmax`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# --- Binarisation that lets gradients through ---------------------------------------------------------------


def straight_through(codes: Tensor, source: Tensor) -> Tensor:
    """Return ``codes`` exactly, with the gradient going to ``source`` as if they were equal.

    (Bengio et al. 2013, arXiv 1308.3432.)

    Args:
        codes, source: of one shape, finite.
    """
    # source - source is 0 to the last bit, so codes stay -1 and 1; source + (codes - source) would round.
    return codes.detach() + (source - source.detach())


def signs(projections: Tensor) -> Tensor:
    """Return -1 and 1, 1 where a projection is >= 0 as in packed codes, straight through.

    (Greedy Hash, Su et al., NeurIPS 2018, section 3.3: the forward pass takes signs, the backward pass copies
    the gradient.)
    """
    return straight_through(torch.where(projections >= 0, 1.0, -1.0).to(projections.dtype), projections)


# --- Bi-half (Li and van Gemert, AAAI 2021, arXiv 2012.12334) -----------------------------------------------


def half(projections: Tensor) -> Tensor:
    """Return codes in which each bit is 1 for the upper half of the items and -1 for the lower, straight through.

    This is the balanced code that is closest to the projections (section 3, optimal transport).  Of an odd number of
    items one more gets -1, as in the released code.
    """
    ranks = projections.argsort(dim=0, descending=True, stable=True)
    upper = torch.full_like(projections, -1.0)
    upper[: len(projections) // 2] = 1.0
    return straight_through(torch.empty_like(upper).scatter_(0, ranks, upper), projections)


def assignment(projections: Tensor, codes: Tensor) -> Tensor:
    """Return half the mean square of U - B, whose gradient is (U - B) / (n bits).

    Times gamma it is what the paper adds to the straight-through gradient: dL/dU = dL/dB + gamma (U - B).
    """
    return functional.mse_loss(projections, codes.detach()) / 2


def cosine_matching(codes: Tensor, features: Tensor) -> Tensor:
    """Return the mean squared difference of cosines of codes and of features over pairs of items.

    Item i is paired with item i + n // 2, as in the released code: batches are shuffled, so pairs are random.

    Args:
        codes: ``(n, bits)``, n at least 2.
        features: ``(n, d)`` of the same items.
    """
    pairs = len(codes) // 2
    ours = functional.cosine_similarity(codes[:pairs], codes[pairs : 2 * pairs])
    theirs = functional.cosine_similarity(features[:pairs], features[pairs : 2 * pairs])
    return functional.mse_loss(ours, theirs)


# --- CIBHash (Qiu et al., IJCAI 2021, arXiv 2105.06138) -----------------------------------------------------


def stochastic_signs(projections: Tensor, uniform: Tensor) -> Tensor:
    """Return codes whose bits are 1 with probability sigmoid(projection), straight through to the probability.

    (The probabilistic binary representation layer, sgn(sigmoid(f) - u), with codes of -1 and 1 for 0 and 1.)

    Args:
        projections: ``(n, bits)``.
        uniform: numbers from [0, 1), shaped alike.
    """
    probabilities = torch.sigmoid(projections)
    return straight_through(torch.where(probabilities > uniform, 1.0, -1.0).to(projections.dtype), probabilities)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised cross-entropy of finding each view's other view among all 2n - 1 other views.

    (NT-Xent of SimCLR, Chen et al. 2020, with cosines of codes.)

    Args:
        first, second: codes of two views of the same items, ``(n, bits)``.
        temperature: of the cosines.
    """
    views = functional.normalize(torch.cat([first, second]))
    count = len(first)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(2 * count, device=logits.device).roll(count)
    return functional.cross_entropy(logits, partners)


def bernoulli_divergence(projections: Tensor, reference: Tensor) -> Tensor:
    """Return KL(p || q), summed over bits, averaged over items, for p and q the sigmoids of projections.

    No gradient goes to ``reference``, as in the released code.

    Args:
        projections, reference: ``(n, bits)``.
    """
    reference = reference.detach()
    p = torch.sigmoid(projections)
    # Logarithms of sigmoids, taken directly: those of rounded probabilities are infinite for confident bits.
    set_bits = p * (functional.logsigmoid(projections) - functional.logsigmoid(reference))
    clear_bits = (1 - p) * (functional.logsigmoid(-projections) - functional.logsigmoid(-reference))
    return (set_bits + clear_bits).sum(1).mean()


# --- CSQ (Yuan et al., CVPR 2020, arXiv 1908.00347) ---------------------------------------------------------


def central_similarity(projections: Tensor, centers: Tensor, weights: Tensor) -> Tensor:
    """Return the cross-entropy of bits against each item's hash center, averaged over bits and items.

    (L_C of section 3.3, with h = (tanh(u) + 1) / 2.)

    Args:
        projections: u, ``(n, bits)``.
        centers: -1 and 1, ``(n, bits)``.
        weights: ``(n,)``, of items; 0 leaves an item out.
    """
    # (tanh(u) + 1) / 2 = sigmoid(2u), whose logarithm can be had without rounding to 0.
    targets = (centers + 1) / 2
    entropies = functional.binary_cross_entropy_with_logits(2 * projections, targets, reduction="none").mean(1)
    return (entropies * weights).sum() / weights.sum().clamp(min=1e-12)


def log_cosh_fence(projections: Tensor) -> Tensor:
    """Return the mean of log cosh(|tanh(u)| - 1): a smooth distance of outputs from -1 and 1.

    (L_Q of section 3.3, where |2h - 1| is |tanh(u)|.)
    """
    return torch.log(torch.cosh(torch.tanh(projections).abs() - 1)).mean()


# --- DPN (Fan et al., IJCAI 2020) ---------------------------------------------------------------------------


def polarization(projections: Tensor, class_codes: Tensor, members: Tensor, margin: float) -> Tensor:
    """Return the mean over items of the sum over their classes and mean over bits of max(0, margin - u t).

    Args:
        projections: u, ``(n, bits)``.
        class_codes: targets t, -1 and 1, ``(classes, bits)``.
        members: which classes an item has, float 0 or 1, ``(n, classes)``.
        margin: how far a projection should lie on its target's side.
    """
    # A target has two values, so counts of classes with either stand for the sum over classes.
    upper = members @ (class_codes > 0).to(members.dtype)
    lower = members @ (class_codes < 0).to(members.dtype)
    return (upper * functional.relu(margin - projections) + lower * functional.relu(margin + projections)).mean()


# --- Greedy Hash (Su et al., NeurIPS 2018) ------------------------------------------------------------------


def cubed_fence(projections: Tensor) -> Tensor:
    """Return the mean of |h - sgn(h)|^3, the penalty of section 3.3 (p = 3)."""
    return ((projections.abs() - 1).abs() ** 3).mean()


# --- HashNet (Cao et al., ICCV 2017, arXiv 1702.00758) ------------------------------------------------------


def pair_likelihood(codes: Tensor, similar: Tensor, alpha: float) -> Tensor:
    """Return the weighted negative log-likelihood of which pairs are similar, averaged over pairs.

    The mean over pairs i != j of w_ij (log(1 + exp(alpha <h_i, h_j>)) - alpha s_ij <h_i, h_j>), with w_ij = |S| / |S1|
    for similar pairs and |S| / |S0| for others (section 3.1, c_ij = 1): similar and dissimilar pairs count alike
    however few there are.  A kind that a batch has no pairs of counts as 0.

    Args:
        codes: ``(n, bits)``, from -1 to 1.
        similar: bool ``(n, n)``, symmetric; the diagonal is ignored.
        alpha: of the product in the likelihood, 1 / (1 + exp(-alpha <h_i, h_j>)).
    """
    products = alpha * (codes @ codes.T)
    surprise = functional.softplus(products) - similar * products
    # An item's product with itself is always large, and says nothing of others.
    others = ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    return _mean_where(surprise, similar & others) + _mean_where(surprise, ~similar & others)


def continuation(progress: Tensor, last: float) -> Tensor:
    """Return beta, by which projections are multiplied before ``tanh``: from 1 to ``last`` while training goes on.

    sqrt(1 + gamma step), the released code's schedule, with gamma such that ``last`` is reached at the end.

    Args:
        progress: the part of the training that is done, from 0 to 1.
        last: at least 1.
    """
    return torch.sqrt(1 + progress * (math.pow(last, 2) - 1))


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)
