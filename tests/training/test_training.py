"""The training loop: its data, schedule, choice of weights and checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lshbench.errors import UsageError
from lshbench.methods.trained import HeadHasher
from lshbench.training import data as training_data
from lshbench.training import loop
from lshbench.training.data import TrainingData, held_out
from lshbench.training.heads import mean_and_deviation
from lshbench.training.validation import all_labels, by_labels, cosine_quality, hamming_quality, same_labels
from lshbench.types import Features, Progress
from tests.methods.clusters import clusters, quality, several_labels, silent
from tests.options import head, training

CPU = torch.device("cpu")


class PullToClass(nn.Module):
    def __init__(self, classes: int, bits: int) -> None:
        super().__init__()
        self.classes = nn.Linear(bits, classes)

    def forward(self, encoder: nn.Module, batch: training_data.Batch) -> loop.Terms:
        return {"class": nn.functional.cross_entropy(self.classes(encoder(batch.x)), batch.y)}


class Small(HeadHasher):
    supervision = "labels"

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return PullToClass(data.classes, self.bits)


def small(layers: dict | None = None, **keys: object) -> Small:
    """Return a small method with some keys of its head and training changed."""
    budget = {"epochs": 4, "batch_size": 64, "min_batches": 20}
    parts = {
        "head": head().in_effect() | {"hidden": [16]} | (layers or {}),
        "training": asdict(training(**budget)) | keys,
    }
    return Small(bits=8, seed=3, device="cpu", **parts)


def fitted(checkpoint: Path | None = None, **keys: object) -> Small:
    method = small(**keys)
    method.checkpoint = checkpoint
    return method.fit(clusters(300), silent)


def same(first: Small, second: Small) -> bool:
    one, other = first.state(), second.state()
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_trained_head_finds_its_classes() -> None:
    # From .70 to .83 over a dozen seeds; chance is .2.
    assert quality(fitted(), clusters(300), clusters(60, seed=9)) > 0.65


def test_the_seed_decides_everything_and_torch_is_left_as_it_was() -> None:
    torch.manual_seed(11)
    first = fitted()
    drawn = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(torch.rand(3), drawn)
    assert same(first, fitted())


def test_a_training_taken_up_again_ends_as_if_it_had_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted()
    file = tmp_path / "deeper" / "training.safetensors"
    save = loop.Checkpoint.save

    def interrupted(self: loop.Checkpoint, *parts: object) -> None:
        save(self, *parts)
        if len(parts[-1]) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop.Checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted(file)
    resumed = fitted(file)
    assert same(whole, resumed)
    assert resumed.history == whole.history


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_either_precision_is_repeatable_and_gives_float32_weights(precision: str) -> None:
    method = fitted(precision=precision)
    assert same(method, fitted(precision=precision))
    assert {array.dtype for array in method.state().values()} <= {
        np.dtype(kind) for kind in (np.float32, np.int64, np.bool_)
    }
    assert quality(method, clusters(300), clusters(60, seed=9)) > 0.65


def test_precisions_differ_in_training_and_a_checkpoint_of_one_is_not_gone_on_from_in_the_other(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    short = fitted(file, precision="bfloat16", epochs=2)
    exact = fitted(file, precision="float32", epochs=2)
    assert not same(short, exact)
    assert same(exact, fitted(precision="float32", epochs=2))


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_gone_on_from(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    fitted(file, epochs=2)
    assert same(fitted(file), fitted())
    file.write_bytes(b"damaged")
    assert same(fitted(file), fitted())


def test_the_chosen_epoch_is_the_best_of_the_validation_part() -> None:
    method = fitted(schedule="constant", epochs=6)
    best = max(row.validation for row in method.history)
    assert method.history[method.chosen_epoch - 1].validation == best


def test_patience_ends_a_training_that_gets_no_better() -> None:
    method = fitted(epochs=60, patience=2, schedule="constant", learning_rate=0.02)
    assert len(method.history) == method.chosen_epoch + 2 < 60


def test_without_a_validation_part_the_last_epoch_is_kept() -> None:
    method = fitted(validation=0.0)
    assert method.chosen_epoch == 4
    assert [row.validation for row in method.history] == [None] * 4


def test_a_restored_head_projects_as_before() -> None:
    method, x = fitted(), clusters(20, seed=5).x
    again = small().restore(method.state())
    assert np.array_equal(again.project(x, "query"), method.project(x, "query"))


def test_several_labels_an_item_are_trained_with() -> None:
    data = TrainingData(several_labels(clusters(100)), training(), 0, CPU)
    assert data.classes == 5
    assert data.take(np.arange(4))[1].shape == (4, 5)


def test_the_held_out_part_has_each_class_in_proportion_and_leaves_none_empty() -> None:
    labels = np.repeat(np.arange(4), [200, 100, 50, 1])
    rows = held_out(labels, 0.1, np.random.default_rng(0))
    assert np.all(np.abs(np.bincount(labels[rows], minlength=4) - [20, 10, 5, 0]) <= 1)
    assert 350 not in rows


def test_batches_pass_through_the_training_part_and_read_a_memory_map_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = clusters(400)
    settings = training(batch_size=45, min_batches=1)
    resident = list(TrainingData(items, settings, 0, CPU).batches(settings, 0, 1))
    rows = np.concatenate([batch.rows for batch in resident])
    assert len(np.unique(rows)) == len(rows) == 8 * 45
    np.save(tmp_path / "x.npy", items.x)
    monkeypatch.setattr(training_data, "RESIDENT_BYTES", 0)
    mapped = Features(np.load(tmp_path / "x.npy", mmap_mode="r"), items.y, items.ids)
    for one, other in zip(resident, TrainingData(mapped, settings, 0, CPU).batches(settings, 0, 1), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)


def test_an_epoch_of_a_large_set_is_a_sample_of_it_and_the_next_one_another() -> None:
    settings = training(batch_size=40, min_batches=1, max_batches=3)
    data = TrainingData(clusters(400), settings, 0, CPU)
    first, second = ([*data.batches(settings, 0, epoch)] for epoch in (1, 2))
    rows, others = (np.concatenate([batch.rows for batch in batches]) for batches in (first, second))
    assert len(np.unique(rows)) == len(rows) == len(others) == 3 * 40 < len(data)
    assert set(rows) != set(others)


def test_schedules_start_low_peak_and_end_near_zero() -> None:
    rates = [training(learning_rate=1.0).rate(step, 100) for step in range(100)]
    assert rates[0] < 0.1
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[-1] < 0.001
    assert training(learning_rate=1.0, schedule="constant").rate(99, 100) == 1.0


def test_statistics_are_those_of_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lshbench.training.heads.STATISTICS_ROWS", 7)
    x = np.random.default_rng(0).normal(1e3, 1, (50, 3)).astype(np.float32)
    mean, deviation = mean_and_deviation(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0))
    np.testing.assert_allclose(deviation, x.astype(np.float64).std(0), rtol=1e-9)


def test_validation_quality_equals_a_worked_example() -> None:
    # Distances 0, 0, 1, 2; relevant: one of the two tied at 0, and the last.
    gallery = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    query, labels = torch.tensor([[1.0, 1.0]]), torch.tensor([0, 1, 1, 0])
    expected = ((1 + 1 / 2) / 2 + 2 / 4) / 2
    assert hamming_quality(query, gallery, by_labels(torch.tensor([0]), labels)) == pytest.approx(expected)
    untied = torch.tensor([[1.0, 0.9], [1.0, 0.1], [1.0, -1.0], [-1.0, -1.0]])
    assert cosine_quality(query, untied, by_labels(torch.tensor([0]), labels)) == pytest.approx((1 + 2 / 4) / 2)


def test_an_item_has_all_of_a_querys_labels_or_it_has_not() -> None:
    queries, gallery = (torch.rand(count, 4) < 0.4 for count in (30, 50))
    queries[0] = False
    expected = [[bool(query.any()) and not (query & ~item).any() for item in gallery] for query in queries]
    assert all_labels(queries, gallery).tolist() == expected
    single = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2, 1])
    assert torch.equal(all_labels(*single), same_labels(*single))


def test_epochs_are_judged_by_the_relevance_of_the_run() -> None:
    items = clusters(300)
    labels = np.column_stack([several_labels(items).y, items.y % 2 == 0])
    items, network = Features(items.x, labels, items.ids), nn.Linear(12, 8)

    def loss(batch: training_data.Batch) -> loop.Terms:
        return {"none": 0 * network(batch.x).sum()}

    for relevance, pairs in (("shared", same_labels), ("subset", all_labels)):
        settings = training(epochs=1, validation=0.2, relevance=relevance, weight_decay=0.0)
        data = TrainingData(items, settings, 0, CPU)
        result = loop.train_model(network, loss, lambda x, side: network(x), data, settings, 0, silent)
        asked, known = data.validation_sample(0)
        codes = network(data.features(asked)), network(data.features(known))
        expected = hamming_quality(*codes, by_labels(data.labels_of(asked), data.labels_of(known), pairs))
        assert result.history[0].validation == pytest.approx(expected)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"epochs": 0}, "method.training.epochs=0"),
        ({"optimizer": "lion"}, "method.training.optimizer='lion'"),
        ({"schedule": "steps"}, "method.training.schedule='steps'"),
        ({"learning_rate": -1}, "method.training.learning_rate=-1"),
        ({"validation": 0.9}, "method.training.validation=0.9"),
        ({"patience": -1}, "method.training.patience=-1"),
        ({"precision": "float16"}, "method.training.precision='float16'"),
        ({"batch_size": 1}, "method.training.batch_size=1"),
        ({"relevance": "some"}, "method.training.relevance='some': expected shared or subset"),
        ({"speed": 1}, "method.training.speed=1"),
    ],
)
def test_a_wrong_training_key_is_named(keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named.replace(".", r"\.")):
        small(**keys)


def test_one_item_a_batch_is_enough_without_batch_normalisation() -> None:
    method = small({"batch_norm": False}, batch_size=1, epochs=1).fit(clusters(60), silent)
    assert np.isfinite(method.history[0].loss)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"hidden": [0]}, "method.head.hidden=[0]"),
        ({"hidden": 512}, "method.head.hidden=512"),
        ({"dropout": 1.0}, "method.head.dropout=1.0"),
        ({"width": 3}, "method.head.width=3"),
    ],
)
def test_a_wrong_head_key_is_named(keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as error:
        small(keys)
    assert named in str(error.value)
