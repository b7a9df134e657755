"""The peers' losses against values worked by hand, and against the papers' formulae written out in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lshbench.methods import bihalf, cibhash, csq, dpn, greedyhash, hashnet
from lshbench.training import losses

U = torch.tensor([[0.9, -0.8, 0.1], [0.5, 0.5, -0.9], [-0.7, 0.3, 0.4], [0.25, -0.15, 0.6]]).double()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gradient(of: torch.Tensor, value: torch.Tensor) -> np.ndarray:
    return torch.autograd.grad(value, of)[0].numpy()


# --- binarisation -------------------------------------------------------------------------------------------


def test_signs_are_exact_count_zero_as_set_and_pass_gradients_on() -> None:
    u = torch.tensor([[0.3, -1e-7, 0.0, -3.0]], requires_grad=True)
    codes = greedyhash.signs(u)
    assert codes.tolist() == [[1, -1, 1, -1]]
    weights = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(gradient(u, (codes * weights).sum()), weights)


def test_half_gives_each_bits_upper_half_a_one() -> None:
    assert bihalf.half(U).tolist() == [[1, -1, -1], [1, 1, -1], [-1, 1, 1], [-1, -1, 1]]


@pytest.mark.parametrize(("items", "upper"), [(64, 32), (7, 3), (2, 1), (1, 0)])
def test_half_is_balanced_whatever_the_projections(items: int, upper: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for u in (torch.randn(items, 33, generator=generator) + 5, torch.zeros(items, 33)):
        codes = bihalf.half(u)
        assert set(codes.unique().tolist()) <= {-1, 1}
        assert ((codes == 1).sum(0) == upper).all()


def test_bihalf_has_the_gradient_of_the_paper() -> None:
    u = U.clone().requires_grad_()
    codes = bihalf.half(u)
    slopes = torch.arange(12.0).reshape(4, 3).double()
    gamma = 6.0
    total = (codes * slopes).sum() + gamma * bihalf.assignment(u, codes)
    b = codes.detach().numpy()
    # dL/dU = dL/dB + gamma (U - B), the latter over n * bits as in the released code.
    np.testing.assert_allclose(gradient(u, total), slopes.numpy() + gamma * (U.numpy() - b) / 12)


def test_stochastic_signs_are_set_with_the_probability_of_the_sigmoid() -> None:
    u = torch.tensor([[0.0, math.log(3), -math.log(3)]]).double().requires_grad_()
    codes = cibhash.stochastic_signs(u, torch.tensor([[0.4, 0.76, 0.24]]).double())
    assert codes.tolist() == [[1, -1, 1]]
    # The gradient of a sigmoid p is p (1 - p).
    np.testing.assert_allclose(gradient(u, codes.sum()), [[0.25, 0.1875, 0.1875]])
    many = cibhash.stochastic_signs(u.expand(20_000, 3), torch.rand(20_000, 3, generator=torch.manual_seed(0)))
    np.testing.assert_allclose((many.detach() == 1).double().mean(0), [0.5, 0.75, 0.25], atol=0.02)


# --- losses -------------------------------------------------------------------------------------------------


def test_cosine_matching_compares_the_first_half_of_a_batch_with_the_second() -> None:
    codes = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, 1.0]])
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [5.0, 0.0]])
    # Cosines of codes 1 and 0, of features 0 and 1.
    assert float(bihalf.cosine_matching(codes, features)) == pytest.approx(1.0)
    same = bihalf.cosine_matching(torch.cat([codes[:2], codes[:2], codes[:1]]), torch.ones(5, 2))
    assert float(same) == pytest.approx(0.0), "the fifth of five has no partner"


def test_nt_xent_is_the_mean_surprise_of_the_other_view() -> None:
    first, second = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    # Cosines: views 0 and 2 are equal; view 3 opposes them; view 1 is orthogonal to all.  Partners: 0-2 and 1-3.
    e = math.exp(2)
    found = [e / (e + 1 + 1 / e), 1 / 3, e / (e + 1 + 1 / e), 1 / (1 + 2 / e)]
    expected = -np.log(found).mean()
    assert float(cibhash.nt_xent(first, second, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_bernoulli_divergence_is_that_of_probabilities_and_leaves_the_reference_alone() -> None:
    p, q = sigmoid(U[:2].numpy()), sigmoid(U[2:].numpy())
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1).mean()
    reference = U[2:].clone().requires_grad_()
    value = cibhash.bernoulli_divergence(U[:2], reference)
    assert float(value) == pytest.approx(expected)
    assert not value.requires_grad
    assert math.isfinite(float(cibhash.bernoulli_divergence(torch.tensor([[200.0]]), torch.tensor([[-200.0]]))))


def test_central_similarity_is_the_cross_entropy_of_bits() -> None:
    centers = np.array([[1, -1, 1], [1, 1, -1], [-1, 1, -1], [1, -1, 1]])
    h, c = (np.tanh(U.numpy()) + 1) / 2, (centers + 1) / 2
    entropies = -(c * np.log(h) + (1 - c) * np.log(1 - h)).mean(1)
    every = csq.central_similarity(U, torch.tensor(centers).double(), torch.ones(4).double())
    assert float(every) == pytest.approx(entropies.mean())
    weights = torch.tensor([1.0, 0.0, 1.0, 0.0]).double()
    some = csq.central_similarity(U, torch.tensor(centers).double(), weights)
    assert float(some) == pytest.approx(entropies[[0, 2]].mean())
    assert float(csq.central_similarity(U, torch.tensor(centers).double(), 0 * weights)) == 0


def test_log_cosh_fence_is_least_for_saturated_outputs() -> None:
    h = (np.tanh(U.numpy()) + 1) / 2
    assert float(csq.log_cosh_fence(U)) == pytest.approx(np.log(np.cosh(np.abs(2 * h - 1) - 1)).mean())
    assert float(csq.log_cosh_fence(torch.zeros(2, 2))) == pytest.approx(math.log(math.cosh(1)))
    assert float(csq.log_cosh_fence(torch.full((2, 2), -40.0))) == 0


def test_polarization_sums_over_an_items_classes() -> None:
    codes = torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
    u = torch.tensor([[0.25, -3.0], [0.25, -3.0], [0.25, -3.0], [0.25, -3.0]])
    one, both, neither = [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]
    value = dpn.polarization(u[:1], codes, torch.tensor([one]), 1.0)
    assert float(value) == pytest.approx(0.75 / 2)
    value = dpn.polarization(u[:1], codes, torch.tensor([both]), 1.0)
    assert float(value) == pytest.approx((0.75 + 1.25) / 2)
    value = dpn.polarization(u, codes, torch.tensor([one, both, neither, neither]), 1.0)
    assert float(value) == pytest.approx((0.75 + 2.0) / 2 / 4)


def test_cubed_fence() -> None:
    assert float(greedyhash.cubed_fence(torch.tensor([[0.5, -3.0, 1.0, 0.0]]))) == pytest.approx((0.125 + 8 + 1) / 4)


def test_pair_likelihood_is_the_weighted_one_of_the_paper() -> None:
    h, labels, alpha = np.tanh(U.numpy()), np.array([0, 0, 1, 0]), 0.7
    terms, similar = [], []
    for i in range(4):
        for j in range(4):
            if i != j:
                product = alpha * h[i] @ h[j]
                similar.append(labels[i] == labels[j])
                terms.append(math.log(1 + math.exp(product)) - similar[-1] * product)
    similar = np.array(similar)
    weights = np.where(similar, len(similar) / similar.sum(), len(similar) / (~similar).sum())
    same = torch.tensor(labels[:, None] == labels)
    value = hashnet.pair_likelihood(torch.tensor(h), same, alpha)
    assert float(value) == pytest.approx((weights * terms).mean())


def test_pair_likelihood_of_one_kind_of_pairs_is_finite() -> None:
    everything = torch.ones(4, 4, dtype=torch.bool)
    assert float(hashnet.pair_likelihood(torch.zeros(4, 3), everything, 1.0)) == pytest.approx(math.log(2))
    assert float(hashnet.pair_likelihood(torch.zeros(4, 3), ~everything, 1.0)) == pytest.approx(math.log(2))
    assert float(hashnet.pair_likelihood(torch.zeros(1, 3), everything[:1, :1], 1.0)) == 0


def test_beta_goes_from_one_to_the_last_as_a_square_root() -> None:
    progress = torch.tensor([0.0, 0.5, 1.0])
    np.testing.assert_allclose(hashnet.continuation(progress, 7.0), [1, 5, 7])
    np.testing.assert_allclose(hashnet.continuation(progress, 1.0), [1, 1, 1])


def test_orthohash_on_codes_of_a_hadamard_matrix() -> None:
    codes = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    loss = losses.class_softmax(torch.tensor([[2.0, 2.0]]), codes, torch.tensor([[0.5, 0.5]]), margin=0.2, scale=8.0)
    # Logits 8 (1 - .1) and 8 (0 - .1): the margin falls on both classes in proportion.
    expected = -0.5 * (math.log(1 / (1 + math.exp(-8))) + math.log(1 / (1 + math.exp(8))))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
