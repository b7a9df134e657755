"""The peers: that they learn, on equal terms, for all kinds of labels and lengths, and the same after a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lshbench.errors import UsageError
from lshbench.methods.bihalf import BiHalf
from lshbench.methods.cibhash import CibHash
from lshbench.methods.csq import Csq
from lshbench.methods.dpn import Dpn
from lshbench.methods.greedyhash import GreedyHash
from lshbench.methods.hashnet import HashNet, HashNetCriterion
from lshbench.methods.orthohash import OrthoHash
from lshbench.methods.random_projection import RandomProjection
from lshbench.methods.trained import HeadHasher
from lshbench.training import loop
from lshbench.training.data import Batch, TrainingData
from lshbench.training.validation import by_labels, hamming_quality
from lshbench.types import Features
from tests.methods.clusters import clusters, several_labels, silent
from tests.options import head, node, training

SUPERVISED = [OrthoHash, Csq, Dpn, GreedyHash, HashNet]
PEERS: list[type[HeadHasher]] = [*SUPERVISED, BiHalf, CibHash]
FEW = {"epochs": 4, "min_batches": 10}
OWN_TERMS = {"quantization", "assignment", "bottleneck"}


def made(peer: type[HeadHasher], bits: int = 16, **changes: object) -> HeadHasher:
    """Return a peer with the values of its YAML, some of them changed."""
    keys = node(peer.__name__.lower() if peer in PEERS else peer.__base__.__name__.lower(), bits=bits, **changes)
    return peer(**{key: value for key, value in keys.items() if key not in ("name", "_target_")})


def fitted(peer: type[HeadHasher], train: Features, bits: int = 16, **keys: object) -> HeadHasher:
    return made(peer, bits, **{"training": FEW, **keys}).fit(train, silent)


def average_precision(method: HeadHasher | RandomProjection) -> float:
    """Return the mAP of 60 queries against 300 items."""
    gallery, queries = clusters(300), clusters(60, seed=9)
    codes = [
        torch.from_numpy(method.project(part.x, side)) for part, side in ((queries, "query"), (gallery, "gallery"))
    ]
    return hamming_quality(*codes, by_labels(torch.from_numpy(queries.y), torch.from_numpy(gallery.y)))


def same(first: HeadHasher, second: HeadHasher) -> bool:
    one, other = first.state(), second.state()
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
def test_it_beats_random_hyperplanes(peer: type[HeadHasher]) -> None:
    chance = average_precision(RandomProjection(bits=16).fit(clusters(300), silent))
    trained = fitted(peer, clusters(300), training={})
    assert average_precision(trained) > chance + (0.15 if peer in SUPERVISED else 0.02)


@pytest.mark.parametrize("peer", PEERS)
def test_all_have_the_same_head_and_budget(peer: type[HeadHasher]) -> None:
    method = made(peer)
    assert method.head == head()
    assert method.training == training()
    state = fitted(peer, clusters(100), training={"epochs": 1}).state()
    assert [array.shape for array in state.values() if array.ndim == 2] == [(512, 12), (16, 512)]


@pytest.mark.parametrize("peer", PEERS)
def test_a_training_taken_up_again_ends_as_if_it_had_never_stopped(
    peer: type[HeadHasher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = clusters(200)
    whole = fitted(peer, train)
    save = loop.Checkpoint.save

    def interrupted(self: loop.Checkpoint, *parts: object) -> None:
        save(self, *parts)
        if len(parts[-1]) == 2:
            raise KeyboardInterrupt

    method = made(peer, training=FEW)
    method.checkpoint = tmp_path / "training.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(loop.Checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            method.fit(train, silent)
    resumed = made(peer, training=FEW)
    resumed.checkpoint = method.checkpoint
    resumed.fit(train, silent)
    assert same(whole, resumed)
    assert resumed.history == whole.history


@pytest.mark.parametrize("peer", PEERS)
def test_items_may_have_several_labels_or_none(peer: type[HeadHasher]) -> None:
    train = several_labels(clusters(200))
    train.y[:20] |= np.roll(train.y[:20], 1, axis=1)
    train.y[20:30] = False
    method = fitted(peer, train)
    assert all(np.isfinite(row.loss) for row in method.history)
    assert average_precision(method) > 0.3, "chance is 0.2"


@pytest.mark.parametrize("peer", SUPERVISED)
def test_one_label_as_a_row_of_booleans_is_the_same_as_a_number(peer: type[HeadHasher]) -> None:
    if peer is GreedyHash:
        return  # several labels have a cross-entropy each
    settings = {"epochs": 2, "validation": 0.0}  # parts are drawn by class only for numbers
    single, several = (fitted(peer, part, training=settings) for part in (clusters(100), several_labels(clusters(100))))
    assert single.history[-1].loss == pytest.approx(several.history[-1].loss, rel=1e-4)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("bits", "classes"), [(1, 1), (1, 10), (3, 10), (8, 40), (48, 1), (4096, 5)])
def test_any_number_of_classes_and_bits_will_do(peer: type[HeadHasher], bits: int, classes: int) -> None:
    keys = {"head": {"hidden": [16]}, "training": {"epochs": 1, "min_batches": 2, "max_batches": 2}}
    method = fitted(peer, clusters(120, classes=classes), max(bits, peer.smallest_bits), **keys)
    assert np.isfinite(method.project(clusters(5).x, "query")).all()
    assert np.isfinite(method.history[0].loss)


@pytest.mark.parametrize("peer", PEERS)
def test_one_bit_is_refused_just_where_it_learns_nothing_from_the_data(peer: type[HeadHasher]) -> None:
    class OneBit(peer):
        smallest_bits = 1

    method = made(OneBit, 1)
    data = TrainingData(clusters(100), method.training, 0, torch.device("cpu"), method.supervision)
    encoder, criterion = method.build(data.inputs), method.criterion(data, silent)
    batch = next(data.batches(method.training, 0, 1))
    # The terms that lead a bit somewhere else than to its own sign or its own probability.
    terms = [term for name, term in criterion(encoder, batch).items() if name not in OWN_TERMS]
    gradients = torch.autograd.grad(sum(terms), list(encoder.parameters()))
    learns = max(float(gradient.abs().max()) for gradient in gradients) > 1e-3
    assert learns == (peer.smallest_bits == 1)
    if not learns:
        with pytest.raises(UsageError, match="bits=1: expected at least 2 for this method"):
            made(peer, 1)


def test_hashnets_beta_grows_with_the_batches_of_training_only() -> None:
    criterion = HashNetCriterion(alpha=1.0, last_beta=7.0, steps=4)
    batch = Batch(torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 2]), np.arange(6), np.random.default_rng(0))
    betas = [float(criterion.beta)]
    for _ in range(5):
        criterion(torch.nn.Identity(), batch)
        betas.append(float(criterion.beta))
    np.testing.assert_allclose(betas, [1, 13**0.5, 5, 37**0.5, 7, 7], rtol=1e-6)
    criterion.eval()
    criterion.done.zero_()
    criterion(torch.nn.Identity(), batch)
    assert float(criterion.beta) == 1


def test_hashnets_beta_has_reached_its_end_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = HashNet.criterion

    def kept(self: HashNet, *arguments: object) -> torch.nn.Module:
        made.append(original(self, *arguments))
        return made[-1]

    monkeypatch.setattr(HashNet, "criterion", kept)
    # Without a validation part the last epoch's weights, and its count of batches, are kept.
    fitted(HashNet, clusters(100), training={"epochs": 2, "validation": 0.0})
    assert int(made[0].done) == made[0].steps == 16
    assert float(made[0].beta) == pytest.approx(7)


def test_cibhash_views_keep_the_deviation_of_features() -> None:
    method = made(CibHash, 8)
    view = method.view(torch.randn(2000, 50, generator=torch.Generator().manual_seed(0)))
    assert float(view.std()) == pytest.approx(1, abs=0.02)
    assert float((view == 0).float().mean()) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("peer", "keys", "named"),
    [
        (BiHalf, {"gamma": -1.0}, "method.gamma=-1.0"),
        (BiHalf, {"training": {"batch_size": 1}}, "method.training.batch_size=1"),
        (BiHalf, {"training": {"batch_size": 1}, "head": {"batch_norm": False}}, "method.training.batch_size=1"),
        (OrthoHash, {"training": {"batch_size": 1}, "head": {"hidden": []}}, "method.training.batch_size=1"),
        (CibHash, {"temperature": 0.0}, "method.temperature=0.0"),
        (CibHash, {"beta": float("nan")}, "method.beta=nan"),
        (CibHash, {"dropped": 1.0}, "method.dropped=1.0"),
        (CibHash, {"noise": -0.1}, "method.noise=-0.1"),
        (OrthoHash, {"targets": "orthogonal"}, "method.targets='orthogonal'"),
        (OrthoHash, {"margin": 2.5}, "method.margin=2.5"),
        (OrthoHash, {"scale": 0.0}, "method.scale=0.0"),
        (Csq, {"targets": None}, "method.targets=None"),
        (Csq, {"quantization_weight": -1.0}, "method.quantization_weight=-1.0"),
        (Dpn, {"targets": "x"}, "method.targets='x'"),
        (Dpn, {"margin": 0.0}, "method.margin=0.0"),
        (GreedyHash, {"alpha": float("inf")}, "method.alpha=inf"),
        (HashNet, {"alpha": 0.0}, "method.alpha=0.0"),
        (HashNet, {"last_beta": 0.5}, "method.last_beta=0.5"),
    ],
)
def test_a_wrong_key_is_named(peer: type[HeadHasher], keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as error:
        made(peer, 8, **keys)
    assert named in str(error.value)


def test_divided_items_of_csq_are_not_drawn_to_a_class() -> None:
    items = several_labels(clusters(60))
    data = TrainingData(items, training(validation=0), 0, torch.device("cpu"))
    codes, ties = made(Csq, 48, targets="bernoulli").centers(data)
    assert not (codes == ties).all(1).any()
