"""FourierHashNet: what its options learn, its two sides, and how pairs are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lshbench.config import build
from lshbench.errors import UsageError
from lshbench.methods.base import Method
from lshbench.methods.fourier.pairs import PairSampler
from lshbench.training.class_codes import target_codes
from lshbench.training.data import Batch, TrainingData
from lshbench.training.neighbors import NeighborGraph
from lshbench.training.validation import all_labels, by_labels, hamming_quality
from lshbench.types import Features
from tests.methods.clusters import clusters, quality, several_labels, silent
from tests.methods.test_neural import random_quality
from tests.options import METHODS, make, node, training

FEW = {"epochs": 4, "min_batches": 10}
SHORT = {"hash_epochs": 3, "hash_queries": 40}
AGNOSTIC = SHORT | {"hash_objective": "query_agnostic"}
OPTIONS = [name for name in METHODS if name.startswith("fourier")]


def few(option: str) -> dict[str, object]:
    """Return keys that make a training of one epoch."""
    return {"training": {"epochs": 1}, **(SHORT if option in ("fourier_paper", "fourier_design") else {})}


@pytest.mark.parametrize("option", ["fourier", "fourier_unsupervised"])
def test_the_variant_beats_random_hyperplanes(option: str) -> None:
    method = make(option, training=FEW).fit(clusters(300), silent)
    assert quality(method, clusters(300), clusters(60, seed=9)) > random_quality(16) + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("option", ["fourier_paper", "fourier_design"])
@pytest.mark.parametrize("supervision", ["labels", "none"])
def test_both_stages_are_trained(option: str, supervision: str) -> None:
    method = make(option, supervision=supervision, training={"epochs": 3, "learning_rate": 2e-4}, **SHORT)
    method.fit(clusters(300), silent)
    assert [row.epoch for row in method.history] == [1, 2, 3, 4, 5, 6]
    assert set(method.history[0].terms) == {"reduction"}
    assert set(method.history[-1].terms) == {"ranking", "fence", "balance"}
    assert method.history[2].loss < method.history[0].loss
    assert method.chosen_epoch > 3


def test_the_two_sides_have_encoders_of_their_own_and_share_the_hash_layer() -> None:
    method = make("fourier", training=FEW).fit(clusters(300), silent)
    x = clusters(20, seed=4).x
    assert not np.allclose(method.project(x, "query"), method.project(x, "gallery"))
    assert [name for name in method.state() if name.startswith("hash.")] == ["hash.weight", "hash.bias"]


@pytest.mark.parametrize("several", [False, True])
def test_containment_changes_nothing_where_items_have_one_label(several: bool) -> None:
    items, x = clusters(200), clusters(20, seed=4).x
    items = several_labels(items) if several else items
    made = [make("fourier", training=FEW | {"relevance": kind}).fit(items, silent) for kind in ("shared", "subset")]
    assert np.array_equal(*(method.project(x, "query") for method in made))
    assert [epoch.validation for epoch in made[0].history] == [epoch.validation for epoch in made[1].history]


def sets(count: int, fewest: int, most: int, seed: int) -> Features:
    """Return sets of items of clusters: the largest of their features in each coordinate, the labels of all of them."""
    generator = np.random.default_rng(seed)
    items = several_labels(clusters(count * most, classes=10, inputs=24, spread=0.5, seed=seed))
    members = np.split(np.arange(count * most), count)
    kept = [part[: generator.integers(fewest, most + 1)] for part in members]
    x, y = (np.stack([values[part].max(0) for part in kept]) for values in (np.abs(items.x), items.y))
    return Features(x, y, np.arange(count))


def test_training_by_containment_finds_more_of_the_sets_that_have_all_labels_of_a_query() -> None:
    train, gallery, queries = sets(600, 1, 4, 0), sets(300, 2, 4, 1), sets(100, 1, 2, 2)
    relation = by_labels(torch.tensor(queries.y), torch.tensor(gallery.y), all_labels)
    found = {}
    for kind in ("shared", "subset"):
        method = make("fourier", 32, training=FEW | {"relevance": kind}).fit(train, silent)
        asked, known = method.project(queries.x, "query"), method.project(gallery.x, "gallery")
        found[kind] = hamming_quality(torch.tensor(asked), torch.tensor(known), relation)
    assert found["subset"] > found["shared"] + 0.01, found


def test_the_published_network_has_the_published_shape() -> None:
    method = make("fourier_paper", **few("fourier_paper")).fit(clusters(300), silent)
    state = method.state()
    assert state["encoders.query.map_layer.weight"].shape == (10, 4 * 10 * 12)
    assert state["hash.weight"].shape == (16, 10)
    assert np.abs(state["fourier.frequencies"]).max() > 3


@pytest.mark.parametrize(
    ("option", "keys"), [*((option, {}) for option in OPTIONS), ("fourier", {"encoders": "shared"})], ids=str
)
def test_a_restored_method_projects_as_before(option: str, keys: dict) -> None:
    method = make(option, 8, **few(option), **keys).fit(several_labels(clusters(200)), silent)
    x = clusters(10, seed=4).x
    again = make(option, 8, seed=5, **keys).restore(method.state())
    for side in ("gallery", "query"):
        assert np.array_equal(method.project(x, side), again.project(x, side))


def test_a_run_of_an_earlier_version_has_two_encoders_and_the_map_at_full_size() -> None:
    keys = node("fourier", bits=8, map_dim=6, head={"hidden": [16]}, map_gain=1.0, training={"epochs": 1})
    earlier = {key: value for key, value in keys.items() if key not in ("encoders", "map_gain", "bit_weight")}
    now, again = (build({"method": chosen}, "method", Method) for chosen in (keys, earlier))
    state = now.fit(clusters(200), silent).state()
    again.restore(state)
    x = clusters(10, seed=4).x
    for side in ("gallery", "query"):
        assert np.array_equal(again.project(x, side), now.project(x, side))
    assert again.in_effect()["bit_weight"] == 0
    assert {"encoders.query.skip.weight", "encoders.gallery.layers.0.running_mean"} <= set(state)


def test_without_a_map_the_encoders_see_the_features_only() -> None:
    method = make("fourier", 8, map_dim=0, training=FEW).fit(clusters(200), silent)
    assert not [name for name in method.state() if "map" in name or name.startswith("fourier")]


@pytest.mark.parametrize("kind", ["labels", "several", "neighbours"])
def test_pairs_are_drawn_one_relevant_for_one_irrelevant(kind: str) -> None:
    items = clusters(200)
    data = TrainingData(
        several_labels(items) if kind == "several" else items, training(validation=0), 0, torch.device("cpu")
    )
    graph = None
    if kind == "neighbours":
        graph = NeighborGraph(np.stack([(np.arange(200) + 1) % 200, (np.arange(200) - 1) % 200], axis=1))
    first, second, relevant = PairSampler(data, graph).draw(np.arange(200), 400, np.random.default_rng(0))
    assert relevant.sum() == 200
    if graph is None:
        assert np.array_equal(items.y[first] == items.y[second], relevant)
    else:
        assert np.array_equal(np.isin((first - second) % 200, [1, 199]), relevant)


def test_an_item_without_a_label_is_paired_with_itself_alone() -> None:
    items = several_labels(clusters(60))
    items.y[:10] = False
    data = TrainingData(items, training(validation=0), 0, torch.device("cpu"))
    first, second, relevant = PairSampler(data, None).draw(np.arange(60), 400, np.random.default_rng(0))
    assert not items.y[first[relevant]].any(1).all()
    assert np.array_equal((items.y[first] & items.y[second]).any(1) | (first == second), relevant)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"recipe": "paper"}, "method.recipe='paper': no such key"),
        ({"supervision": "none"}, "method.supervision='none': no such key"),
        ({"frequencies": 0}, "method.frequencies=0"),
        ({"band": -1.0}, "method.band=-1.0"),
        ({"ranking_weight": -1.0}, "method.ranking_weight=-1.0"),
        ({"head": {"hidden": []}}, "method.head.hidden=[]"),
        ({"map_dim": 0, "skip": False}, "method.skip=False"),
        ({"gallery_share": 1.5}, "method.gallery_share=1.5"),
        ({"encoders": "both"}, "method.encoders='both'"),
        ({"map_gain": 0.0}, "method.map_gain=0.0"),
        ({"head": {"activation": "tanh"}}, "method.head.activation='tanh'"),
        ({"training": {"batch_size": 1}}, "method.training.batch_size=1"),
        ({"temperature": float("inf")}, "method.temperature=inf"),
        ({"class_weight": float("nan")}, "method.class_weight=nan"),
    ],
)
def test_a_wrong_key_is_named(keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as error:
        make("fourier", 8, **keys)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"supervision": "some"}, "method.supervision='some'"),
        ({"hash_epochs": 0}, "method.hash_epochs=0"),
        ({"reduction_loss": "hinge"}, "method.reduction_loss='hinge'"),
        ({"hash_objective": "aware"}, "method.hash_objective='aware'"),
        ({"ranking_weight": 0.95}, "method.ranking_weight=0.95: expected at most 1 - fence_weight"),
        (AGNOSTIC | {"decorrelation_weight": 0.95}, "method.decorrelation_weight=0.95: expected at most 1 - fence"),
    ],
)
def test_a_wrong_key_of_the_published_method_is_named(keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as error:
        make("fourier_paper", 8, **keys)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("option", "keys"),
    [
        *((option, {}) for option in OPTIONS),
        ("fourier", {"map_dim": 0}),
        ("fourier", {"encoders": "shared"}),
        ("fourier_paper", {"hash_objective": "query_agnostic"}),
        pytest.param("fourier_paper", {"supervision": "none"}, marks=pytest.mark.slow),
        pytest.param("fourier_design", {"supervision": "none"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_number_in_effect_changes_the_codes(option: str, keys: dict[str, object]) -> None:
    short = {"hash_epochs": 1, "hash_queries": 4} if option in ("fourier_paper", "fourier_design") else {}
    keys = {"head": {"hidden": [16]}, **keys, **short}
    keys["training"] = {"epochs": 1, "min_batches": 2, "batch_size": 64, "validation": 0.0}

    def projected(**changed: object) -> np.ndarray:
        method = make(option, 8, **keys | changed).fit(clusters(100), silent)
        return np.concatenate([method.project(clusters(20, seed=4).x, side) for side in ("query", "gallery")])

    values = make(option, 8, **keys).in_effect()
    idle: set[str] = set()
    if values.get("map_dim") == 0:
        idle |= {"threshold", "band", "scale", "map_gain"}
    if values.get("encoders") == "shared":
        idle.add("gallery_share")
    if "hash_objective" in values:
        idle.add("decorrelation_weight" if values["hash_objective"] == "query_aware" else "ranking_weight")
    before = projected()
    for key, value in values.items():
        if isinstance(value, float) and key not in idle:
            assert not np.array_equal(projected(**{key: 0.7 * value + 0.01}), before), key


@pytest.mark.parametrize("loss", ["squares", "ranking"])
def test_the_other_losses_of_pairs_are_trained(loss: str) -> None:
    keys = SHORT | {"training": {"epochs": 3, "learning_rate": 2e-4}}
    method = make("fourier_paper", reduction_loss=loss, **keys).fit(clusters(300), silent)
    usual = make("fourier_paper", **keys).fit(clusters(300), silent)
    assert method.history[2].loss < method.history[0].loss != usual.history[0].loss


def test_the_query_agnostic_objective_is_trained_without_positives() -> None:
    method = make("fourier_paper", **AGNOSTIC, training={"epochs": 1}).fit(clusters(300), silent)
    first, *_, last = method.history[1:]
    assert set(last.terms) == {"fence", "decorrelation", "balance"}
    assert last.loss < first.loss


def test_labels_teach_transfer_without_codes_for_classes() -> None:
    method = make("fourier_transfer", 8, training=FEW).fit(clusters(200), silent)
    assert set(method.history[-1].terms) == {"geometry", "ranking", "fence", "balance"}
    assert method.history[-1].terms["geometry"] < method.history[0].terms["geometry"]
    assert quality(method, clusters(300), clusters(60, seed=9)) > random_quality(8) + 0.02


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("fourier", ", or one for method.class_weight, or one for method.bit_weight"),
        (
            "fourier_transfer",
            ", or one for method.class_weight, or one for method.bit_weight, or one for method.geometry_weight",
        ),
        ("fourier_unsupervised", ""),
    ],
)
def test_a_training_with_nothing_to_learn_from_is_refused(option: str, instead: str) -> None:
    weights = dict.fromkeys(("ranking_weight", "class_weight", "bit_weight", "geometry_weight"), 0.0)
    keys = {name: value for name, value in weights.items() if name == "ranking_weight" or name in instead}
    expected = rf"method.ranking_weight=0: expected a positive number{instead}: nothing else says"
    with pytest.raises(UsageError, match=expected):
        make(option, 8, **keys)
    if instead:
        make(option, 8, **keys | {"class_weight": 1.0})


def test_a_query_is_reduced_by_both_encoders_in_the_shares_asked_for() -> None:
    x = clusters(20, seed=4).x
    state = make("fourier", 8, training=FEW).fit(clusters(200), silent).state()

    def projected(share: float, side: str) -> np.ndarray:
        return make("fourier", 8, gallery_share=share).restore(state).project(x, side)

    own, gallery = projected(0, "query"), projected(0, "gallery")
    assert np.abs(own - gallery).max() > 0.1
    assert np.allclose(projected(0.25, "query"), 0.75 * own + 0.25 * gallery, atol=1e-4)
    assert np.allclose(projected(0.25, "gallery"), gallery, atol=1e-4)


def test_sides_that_share_an_encoder_have_one_set_of_weights() -> None:
    separate, shared = (
        make("fourier", 8, encoders=encoders).build(12).encoders.state_dict() for encoders in ("separate", "shared")
    )
    weights = {name: value.shape for name, value in separate.items() if value.ndim > 1 and "query" in name}
    assert {name.replace("query", "both"): shape for name, shape in weights.items()} == {
        name: value.shape for name, value in shared.items() if value.ndim > 1
    }


@pytest.mark.parametrize("keys", [{}, {"map_gain": 1.0}, {"map_gain": 1.0, "skip": False}, {"map_dim": 0}], ids=str)
def test_sides_that_share_an_encoder_are_normalised_in_use_as_in_training(keys: dict) -> None:
    method = make(
        "fourier", 8, encoders="shared", head={"dropout": 0.0}, training=FEW | {"precision": "float32"}, **keys
    )
    items = clusters(600)
    network = method.fit(items, silent).network
    assert network is not None
    for side in ("query", "gallery"):
        with torch.no_grad():
            in_use = network.eval()(torch.tensor(items.x), side)
            in_training = network.train()(torch.tensor(items.x), side)
        gap = (in_use.mean(0) - in_training.mean(0)).abs() / in_training.std(0)
        assert float(gap.max()) < 0.4


def test_each_side_of_a_shared_encoder_has_its_own_dropout() -> None:
    network = make("fourier", 8, encoders="shared", gallery_dropout=0.0, head={"dropout": 0.9}).build(12).train()
    prepared = network.prepare(torch.tensor(clusters(40).x))
    dropped = {side: float((network.encode(prepared, side) == 0).float().mean()) for side in ("query", "gallery")}
    assert dropped == {"query": pytest.approx(0.9, abs=0.05), "gallery": 0}


def bits_term(items: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the term of bits for a batch of all items, and the gradient of the last layer's bias from it."""
    method = make("fourier", 8, bit_weight=1.0, targets="bernoulli", training=training(validation=0))
    torch.manual_seed(0)
    data, network = method.prepare(items)
    loss = method.objective(data, network, silent)
    rows = np.arange(len(items))
    terms = loss(Batch(*data.take(rows), rows, np.random.default_rng(0)))
    terms["bits"].backward()
    assert network.hash.bias.grad is not None
    return terms["bits"].detach(), network.hash.bias.grad


def test_bits_are_drawn_to_those_of_class_codes() -> None:
    method = make("fourier", 16, bit_weight=4.0, class_weight=0.0, ranking_weight=0.0, training=FEW)
    items = clusters(300)
    terms = method.fit(items, silent).history[-1].terms
    assert set(terms) == {"fence", "balance", "bits"}
    data = TrainingData(items, method.training, method.seed, torch.device("cpu"))
    codes = target_codes("similar", data, 16, method.seed).numpy()
    signs = np.sign(method.project(items.x, "gallery"))
    own = codes[np.unique(items.y, return_inverse=True)[1]]
    assert (signs == own).mean() > 0.95


def test_a_bit_counts_as_far_as_an_items_classes_agree_in_it() -> None:
    single = clusters(60)
    classes, numbers = np.unique(single.y, return_inverse=True)
    flags = np.eye(len(classes), dtype=bool)[numbers]
    of_numbers, of_flags = bits_term(single), bits_term(replace(single, y=flags))
    for first, second in zip(of_numbers, of_flags, strict=True):
        assert torch.allclose(first, second)
    # An item without labels adds its place in the mean alone.
    without = flags.copy()
    without[0] = False
    less, whole = bits_term(replace(single, y=without))[0], of_flags[0]
    assert float(less) < float(whole)
    everything = bits_term(replace(single, y=np.ones_like(flags)))
    assert float(everything[0]) < float(whole)


@pytest.mark.parametrize(
    ("option", "keys"),
    [
        ("fourier", {}),
        ("fourier_paper", {}),
        ("fourier_design", {}),
        ("fourier_transfer", {"gallery_share": 0.0}),
        ("fourier", {"map_dim": 0}),
        ("fourier", {"encoders": "shared"}),
        ("fourier", {"encoders": "shared", "map_dim": 0, "head": {"hidden": [24, 16]}}),
        ("fourier", {"encoders": "shared", "skip": False, "head": {"batch_norm": False}, "unit_length": True}),
        ("fourier", {"skip": False, "head": {"hidden": [24, 16]}}),
        (
            "fourier",
            {"map_dim": 6, "frequencies": 2, "unit_length": True, "head": {"batch_norm": False, "activation": "relu"}},
        ),
    ],
    ids=str,
)
def test_codes_are_those_of_the_trained_network(option: str, keys: dict) -> None:
    # Features that are never negative are taken by their roots.
    data = clusters(200)
    data = replace(data, x=np.abs(data.x))
    method = make(option, **few(option), **keys).fit(data, silent)
    x = np.abs(clusters(30, seed=4).x)
    for side in ("gallery", "query"):
        assert method.network is not None
        with torch.inference_mode():
            expected = method.network(torch.tensor(x), "gallery" if option == "fourier_design" else side).numpy()
        np.testing.assert_allclose(method.project(x, side), expected, atol=1e-4 * np.abs(expected).max())
        alone = np.concatenate([method.project(item[None], side) for item in x])
        np.testing.assert_allclose(alone, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("option", ["fourier", "csq"])
@pytest.mark.parametrize("count", [1, 20])
def test_a_second_fit_replaces_what_the_first_encoded_by(option: str, count: int) -> None:
    x = clusters(20, seed=4).x[:count]
    method = make(option, training={"epochs": 1}).fit(clusters(200), silent)
    method.project(x, "query")
    method.fit(clusters(200, seed=3), silent)
    alone = make(option, training={"epochs": 1}).fit(clusters(200, seed=3), silent)
    np.testing.assert_array_equal(method.project(x, "query"), alone.project(x, "query"))
