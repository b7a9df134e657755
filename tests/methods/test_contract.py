"""One contract, held by every shipped method: each conf/method/*.yaml is covered as soon as it is there."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import numpy as safetensors

from lshbench.config import build, conf_folder
from lshbench.errors import UsageError
from lshbench.methods.base import Method
from lshbench.training.history import Epoch
from lshbench.types import Clusters, Codes, Features, Quantised
from tests import options

BITS = 12
STORED = {"rabitq": 72, **dict.fromkeys(("pq", "opq", "residual", "lsq", "sq", "turboquant"), 16)}
"""Bits of quantisers, which store whole bytes, and factors perhaps."""

FOLDER = conf_folder() / "method"
PEERS = ["bihalf", "cibhash", "csq", "dpn", "greedyhash", "hashnet", "orthohash"]
QUICK = {
    "searches": 1, "epochs": 2, "hash_epochs": 2, "hash_queries": 40, "min_batches": 8, "max_batches": 10,
    "clusters": 8,
}  # fmt: skip


def variants() -> list[str]:
    """Every method that makes codes, and once more without labels where it can do either."""
    found = []
    for option in options.METHODS:
        if option != "none":
            found.append(option)
        # Read, not composed: composing every option takes seconds, and this is done before the first test.
        if yaml.safe_load((FOLDER / f"{option}.yaml").read_text(encoding="utf-8")).get("supervision") == "labels":
            found.append(f"{option}:none")
    return found


METHODS = variants()


def node(variant: str, *, bits: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Return a method's configuration as the command line composes it, with little training."""
    name, _, supervision = variant.partition(":")
    bits = STORED.get(name, BITS) if bits is None else bits
    plain = options.composed(f"method={name}", "device=cpu", "seed=0")["method"]
    plain |= {key: value for key, value in (("bits", bits), ("seed", seed)) if key in plain}
    if supervision:
        plain["supervision"] = supervision
    return _quick(plain)


def _quick(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: _quick(value) if isinstance(value, dict) else QUICK.get(key, value) for key, value in keys.items()}


def make(variant: str, **changes: int) -> Method:
    return build({"method": node(variant, **changes)}, "method", Method)


@contextlib.contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda amount: None


@functools.cache
def data() -> tuple[Features, Features]:
    """Five classes of two clusters each, away from the origin: 400 training items, 150 queries, read-only."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((5, 2, 32)) * 1.2 + 3
    parts = []
    for items, first in ((400, 0), (150, 400)):
        y = np.arange(items) % 5
        x = centres[y, generator.integers(0, 2, items)] + generator.standard_normal((items, 32))
        x = x.astype(np.float32)
        x.setflags(write=False)
        parts.append(Features(x, y.astype(np.int64), np.arange(first, first + items)))
    return parts[0], parts[1]


@functools.cache
def fitted(variant: str, seed: int = 0, permuted: bool = False) -> Method:
    train, _ = data()
    y = np.random.default_rng(1).permutation(train.y) if permuted else train.y
    return make(variant, seed=seed).fit(Features(train.x, y, train.ids), silent)


def encode(method: Method, features: Features, side: Any = "gallery", projections: bool = False) -> Any:
    return method.encode(features.x, side, projections=projections)


def numbers(encoded: Any) -> np.ndarray:
    """Return what an encoding says of its items, whichever kind it is."""
    if isinstance(encoded, Codes):
        return encoded.packed
    if isinstance(encoded, Clusters):
        return encoded.numbers
    return encoded.stored if isinstance(encoded, Quantised) else encoded.x


@pytest.mark.parametrize("variant", METHODS)
def test_its_yaml_describes_it_in_the_first_line(variant: str) -> None:
    name = variant.partition(":")[0]
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert f"name: {name}" in lines


@pytest.mark.parametrize("variant", METHODS)
def test_its_yaml_lists_every_key_of_its_constructor(variant: str) -> None:
    keys = node(variant)
    module, _, name = keys["_target_"].rpartition(".")
    target = getattr(__import__(module, fromlist=[name]), name)
    assert set(keys) - {"_target_", "name"} == set(inspect.signature(target).parameters) - {"name"}


@pytest.mark.parametrize("variant", METHODS)
def test_it_refuses_a_code_without_bits_before_seeing_data(variant: str) -> None:
    if "bits" not in node(variant):
        assert make(variant).gives == "clusters" or variant == "float16"
        return
    for bits in (0, -1, 4097):
        with pytest.raises(UsageError, match=f"bits={bits}"):
            make(variant, bits=bits)


@pytest.mark.parametrize("variant", METHODS)
def test_it_learns_from_training_items_alone(variant: str) -> None:
    method = fitted(variant)
    assert list(inspect.signature(method.fit).parameters) == ["train", "progress"]
    assert list(inspect.signature(method.encode).parameters) == ["x", "side", "projections"]


@pytest.mark.parametrize("variant", METHODS)
def test_its_codes_have_the_promised_shapes(variant: str) -> None:
    method, (train, queries) = fitted(variant), data()
    for side, features in (("gallery", train), ("query", queries)):
        encoded = encode(method, features, side, projections=True)
        if method.gives == "clusters":
            clusters = encoded.numbers
            assert clusters.dtype == np.int32
            assert clusters.shape[0] == len(features)
            assert side == "query" or clusters.shape[1] == 1
            assert 0 <= clusters.min() <= clusters.max() < 2**method.bits
            assert all(len(set(row)) == len(row) for row in clusters.tolist())
            continue
        if method.gives == "quantised":
            if side == "gallery":
                assert encoded.stored.dtype == np.uint8
                assert encoded.stored.shape == (len(features), method.bits / 8)
                assert method.bits == STORED.get(variant, 16 * features.x.shape[1])
            vectors = encoded.decode(encoded.stored) if side == "gallery" else encoded.x
            assert vectors.dtype == np.float32
            # Reduced features have a number more, for the length of what is decoded or what factors add.
            width = method.dim + 1 if hasattr(method, "dim") else features.x.shape[1]
            assert vectors.shape == (len(features), width)
            assert np.isfinite(vectors).all()
            continue
        assert (encoded.bits, method.bits) == (BITS, BITS)
        assert encoded.packed.shape == (len(features), 2)
        assert not (encoded.packed[:, -1] & 0b1111).any()
        assert encoded.projections.dtype == np.float32
        assert encoded.projections.shape == (len(features), BITS)
        assert np.isfinite(encoded.projections).all()
        np.testing.assert_array_equal(Codes.from_signs(encoded.projections).packed, encoded.packed)
        assert encode(method, features, side).projections is None


@pytest.mark.parametrize("variant", METHODS)
def test_parts_are_encoded_as_the_whole_is(variant: str) -> None:
    method, (train, _) = fitted(variant), data()
    for side in ("gallery", "query"):
        whole = encode(method, train, side, projections=True)
        parts = [
            encode(method, train.take(rows), side, projections=True)
            for rows in np.split(np.arange(len(train)), [1, 7, 300])  # one alone first
        ]
        if method.gives == "clusters":
            np.testing.assert_array_equal(np.concatenate([part.numbers for part in parts]), whole.numbers)
            continue
        if method.gives == "quantised":
            together = np.concatenate([numbers(part) for part in parts])
            if side == "query":
                np.testing.assert_allclose(together, whole.x, atol=1e-5)
            elif variant != "lsq":  # which draws; others may round a number half-way between two codes otherwise
                assert (together == whole.stored).all(axis=1).mean() > 0.98
            continue
        projections = np.concatenate([part.projections for part in parts])
        scale = np.abs(whole.projections).max()
        np.testing.assert_allclose(projections, whole.projections, atol=1e-4 * scale)
        # Matrix products of other sizes may round otherwise, which may turn a projection of about zero.
        clear = np.abs(whole.projections) > 1e-4 * scale
        bits = np.concatenate([part.unpack() for part in parts])
        np.testing.assert_array_equal(bits[clear], whole.unpack()[clear])


@pytest.mark.parametrize("variant", METHODS)
def test_a_seed_decides_everything_and_a_memory_map_serves_and_is_left_alone(variant: str, tmp_path: Path) -> None:
    train, queries = data()
    np.save(tmp_path / "x.npy", train.x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")  # may be written to, unlike those of data()
    copies = Features(mapped, train.y.copy(), train.ids.copy())
    again = make(variant).fit(copies, silent)
    first = fitted(variant)
    writable = Features(queries.x.copy(), queries.y, queries.ids)
    for side, features in (("gallery", copies), ("query", writable)):
        for projections in (False, True):
            codes = encode(again, features, side, projections=projections)
            np.testing.assert_array_equal(numbers(codes), numbers(encode(first, features, side)))
    assert again.history == first.history
    np.testing.assert_array_equal(copies.x, train.x)
    np.testing.assert_array_equal(copies.y, train.y)
    np.testing.assert_array_equal(copies.ids, train.ids)
    np.testing.assert_array_equal(writable.x, queries.x)


@pytest.mark.parametrize("variant", METHODS)
def test_another_seed_gives_another_code_if_the_method_takes_one(variant: str) -> None:
    train, _ = data()
    if "seed" not in node(variant):
        return
    assert (numbers(encode(fitted(variant, seed=1), train)) != numbers(encode(fitted(variant), train))).any()


@pytest.mark.parametrize("variant", METHODS)
def test_it_says_truly_whether_it_looks_at_labels(variant: str) -> None:
    train, _ = data()
    method = fitted(variant)
    assert method.supervision == (variant.partition(":")[2] or method.supervision)
    assert method.supervision in ("none", "labels")
    same = np.array_equal(numbers(encode(fitted(variant, permuted=True), train)), numbers(encode(method, train)))
    assert same == (method.supervision == "none")


@pytest.mark.parametrize("variant", METHODS)
def test_it_can_be_saved_without_a_pickle_and_restored(variant: str) -> None:
    method, (train, queries) = fitted(variant), data()
    state = method.state()
    for name, array in state.items():
        assert isinstance(array, np.ndarray), name
        assert array.flags.c_contiguous, name
        assert array.dtype.kind in "fiub", name
    restored = make(variant, seed=0).restore(safetensors.load(safetensors.save(state)))
    for side, features in (("gallery", train), ("query", queries)):
        before, after = (encode(one, features, side, projections=True) for one in (method, restored))
        np.testing.assert_array_equal(numbers(after), numbers(before))
        if isinstance(before, Codes):
            np.testing.assert_array_equal(after.projections, before.projections)
    assert restored.parameters == method.parameters == sum(array.size for array in state.values())


@pytest.mark.parametrize("variant", METHODS)
def test_its_training_curve_is_made_of_finite_numbers(variant: str) -> None:
    method = fitted(variant)
    for number, epoch in enumerate(method.history):
        assert isinstance(epoch, Epoch)
        assert number == 0 or epoch.epoch > method.history[number - 1].epoch
        assert np.isfinite(epoch.loss)
        assert epoch.validation is None or np.isfinite(epoch.validation)
        assert all(np.isfinite(value) for value in epoch.terms.values())
    assert method.chosen_epoch is None or method.chosen_epoch in {epoch.epoch for epoch in method.history}


# The staged objectives, reproduced as published, give next to all of so few items one code.
@pytest.mark.parametrize("variant", [v for v in METHODS if not v.startswith(("fourier_paper", "fourier_design"))])
def test_what_it_finds_is_far_more_often_right_than_by_chance(variant: str) -> None:
    method, (train, queries) = fitted(variant), data()
    gallery, asked = encode(method, train), encode(method, queries, "query")
    right = queries.y[:, None] == train.y
    if method.gives == "clusters":
        found = asked.numbers[:, :1] == gallery.numbers[:, 0]
        precision = right[found].mean()
    else:
        if method.gives == "quantised":
            distances = -(asked.x @ gallery.decode(gallery.stored).T)
        else:
            distances = (asked.unpack()[:, None] != gallery.unpack()).sum(axis=2)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :10]
        precision = np.take_along_axis(right, nearest, axis=1).mean()
    assert precision > 0.4, "chance is 0.2"


@pytest.mark.parametrize("variant", METHODS)
def test_what_is_in_effect_makes_the_same_method_again(variant: str) -> None:
    made = make(variant)
    keys = node(variant) | json.loads(json.dumps(made.in_effect()))
    again = build({"method": keys}, "method", Method)
    assert again.in_effect() == made.in_effect()


@pytest.mark.parametrize("option", options.METHODS)
def test_its_values_in_effect_are_those_of_its_yaml(option: str) -> None:
    keys = options.node(option) | ({"bits": STORED[option]} if option in STORED else {})
    shown = flat(
        {key: value for key, value in keys.items() if key not in ("name", "_target_", "bits", "seed", "device")}
    )
    used = flat(json.loads(json.dumps(build({"method": keys}, "method", Method).in_effect())))
    assert used.keys() == shown.keys()
    for key, value in shown.items():
        if value == "auto":
            assert used[key] not in ("auto", None), key
        else:
            assert used[key] == value, key


@pytest.mark.parametrize("option", options.METHODS)
def test_no_value_of_a_training_or_a_weight_is_null(option: str) -> None:
    for key, value in flat(options.node(option)).items():
        if key.startswith(("head.", "training.")) or key.endswith("_weight"):
            assert value is not None, key


def flat(keys: dict[str, Any]) -> dict[str, Any]:
    """Return nested keys as dotted ones."""
    found = {}
    for key, value in keys.items():
        inner = flat(value) if isinstance(value, dict) else {}
        found |= {f"{key}.{name}": one for name, one in inner.items()} or {key: value}
    return found


@pytest.mark.parametrize("option", PEERS)
def test_a_peers_yaml_shows_only_what_is_its_own(option: str) -> None:
    assert len((FOLDER / f"{option}.yaml").read_text(encoding="utf-8").splitlines()) <= 10


def test_all_peers_have_the_same_head_and_budget() -> None:
    for option in PEERS:
        assert options.node(option)["head"] == options.node("csq")["head"], option
        assert options.node(option)["training"] == options.node("csq")["training"], option
