"""A choice within a budget: its candidates, its ranking, and that it goes on and keeps what it claims."""

from __future__ import annotations

import io
import json
import re
import shlex
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lshbench.commands.choose import _print, _write
from lshbench.commands.compose import compose_choice
from lshbench.config import build
from lshbench.errors import UsageError
from lshbench.index.base import Index
from lshbench.index.binary_graphs import BinaryHnswEngine
from lshbench.index.compressed_engines import HnswSqEngine, IvfPqEngine, IvfRabitqEngine, PqFastScanEngine
from lshbench.index.engines import HnswEngine, LshEngine
from lshbench.methods.base import Method, check_bits
from lshbench.methods.none import NoMethod
from lshbench.methods.random_projection import RandomProjection
from lshbench.run_folder import finished_runs
from lshbench.runtime.progress import silent
from lshbench.system import System
from lshbench.tuning.candidates import Budget, Choosing
from lshbench.tuning.choice import Bench, Candidate, Choice, Point, Tried, measured_once, ranked, shorter
from lshbench.tuning.least_bytes import least_bytes
from lshbench.tuning.settings import check_measure
from lshbench.tuning.validation import Judge
from lshbench.types import MOST_BITS, Features, Relevance
from tests.options import composed

MORTAL = """
import os
import signal
from pathlib import Path

from lshbench.methods.random_projection import RandomProjection


class Mortal(RandomProjection):
    def __init__(self, bits, seed):
        super().__init__(bits=bits, seed=seed)

    def fit(self, train, progress):
        if Path("deadly").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(train, progress)
"""

CANDIDATES = """# A few
defaults:
  - base/choice@_here_
  - _self_
name: mine
candidates:
  - {method: itq, bits: code, share: [0.5, 1], index: flat}
  - {method: mortal, bits: code, index: flat, ranking: [hamming, asymmetric]}
  - {method: none, index: ivf_rabitq, index.nbits: code, index.nlist: 4, index.nprobe: [2, 4]}
  - {method: none, index: flat}
  - {method: none, index: hnsw, index.m: 1}
"""


def choosing(*entries: dict[str, Any], **keys: Any) -> Choosing:
    return Choosing(**({"candidates": entries, "validation": 0.2, "queries": 9} | keys))


def test_candidates_are_products_of_values_with_code_lengths_of_the_budget_and_grids_of_query_settings() -> None:
    found = choosing(
        {"method": ["itq", "pq"], "bits": "code", "share": [1, 0.5]},
        {"method": "none", "index": "ivf_pq", "index.nbits": "code", "share": 0.3, "index.nprobe": [4, 16]},
        {"method": "itq", "bits": "code"},
        also=[{"method": "none", "index": "flat"}],
    ).candidates(Budget(7))
    assert found == [
        {"method": "itq", "bits": 56},
        {"method": "itq", "bits": 24},
        {"method": "pq", "bits": 56},
        {"method": "pq", "bits": 24},
        {"method": "none", "index": "ivf_pq", "index.nbits": 16, "index.nprobe": [4, 16]},
        {"method": "none", "index": "flat"},
    ]
    assert choosing({"method": "csq", "head@method.head": ["linear"]}).candidates(Budget(1)) == [
        {"method": "csq", "head@method.head": "linear"}
    ]
    assert choosing({"bits": "code", "share": 0.1}).candidates(Budget(3)) == [{"bits": 8}]
    longest = {"bits": "code", "share": [0.25, 0.5, 1]}
    assert choosing(longest).candidates(Budget(1024)) == [{"bits": 2048}, {"bits": MOST_BITS}]
    check_bits(MOST_BITS)
    with pytest.raises(UsageError):
        check_bits(MOST_BITS + 1)
    assert choosing({"bits": "code"}).candidates(Budget(20)) == [{"bits": 160}, {"bits": 128}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: choosing(), r"choose\.candidates=\[\]: expected at least one"),
        (lambda: choosing({"seed": 1}), r"choose\.candidates\[0\]: seed: expected a key of method, head"),
        (lambda: choosing({"bits": 8}, also=[{7: 1}]), r"choose\.also\[0\]: 7: expected a key of method, head"),
        (lambda: choosing({"bits": 8}, "itq"), r"choose\.candidates\[1\]='itq': expected a mapping such as \{method"),
        (lambda: choosing(candidates={"bits": 8}), r"choose\.candidates=\{'bits': 8\}: expected a list of mappings"),
        (lambda: choosing(candidates="itq"), r"choose\.candidates='itq': expected a list of mappings"),
        (lambda: choosing(also=None), r"choose\.also=None: expected a list of mappings"),
        (lambda: choosing({"method": []}), r"choose\.candidates\[0\]\.method=\[\]: expected a value, or a list"),
        (lambda: choosing({"index.nprobe": []}), r"choose\.candidates\[0\]\.index\.nprobe=\[\]: expected a value"),
        (lambda: choosing({"bits": "code", "share": []}), r"choose\.candidates\[0\]\.share=\[\]: expected a value"),
        *(
            (
                lambda share=share: choosing({"bits": "code", "share": [1, share]}),
                rf"\[0\]\.share={share!r}: expected a part",
            )
            for share in ("half", 0, -1, 1.5, float("nan"), None, True)
        ),
        (lambda: choosing({"bits": 8}, validation=0.6), r"choose\.validation=0\.6: expected more than 0"),
        (lambda: choosing({"bits": 8}, queries=0), r"choose\.queries=0: expected at least 1"),
        (lambda: choosing({"bits": 8}, relevant="qrels"), r"choose\.relevant='qrels': expected auto or labels or"),
        (lambda: Budget.read({"bytes": None, "ms": None}), r"budget\.bytes=None: expected bytes of an item"),
        (lambda: Budget.read({"bytes": 4, "ms": 0}), r"budget\.ms=0: expected milliseconds"),
        (lambda: check_measure("target", "recall"), "target='recall': expected mAP or P@10"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_key(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("values", "state", "reason", "expected"),
    [
        ({"bits": 256, "method": "itq"}, "refused", "bits=256: expected at most 100", {"bits": 128, "method": "itq"}),
        ({"index.nbits": 40}, "refused", "index.nbits=40: expected at most 24", {"index.nbits": 16}),
        ({"bits": 8}, "refused", "bits=8: expected fewer", None),
        ({"bits": 256}, "refused", "method.max_points=3: expected more", None),
        ({"bits": 256}, "refused", "bits=25: expected at most 8", None),
        ({"bits": 64}, "refused", "bits=64: expected 72, 80, 88 and so on", None),
        ({"bits": 512}, "refused", "bits=512: expected fewer: the code has 64 numbers", {"bits": 256}),
        ({"bits": 256}, "failed", "bits=256: a fault", None),
        ({"bits": 256}, "measured", "", None),
        ({"method": "none"}, "refused", "index=flat: no", None),
    ],
)
def test_a_code_that_is_too_long_for_the_data_is_tried_with_half_its_length(
    values: dict[str, Any], state: Any, reason: str, expected: dict[str, Any] | None
) -> None:
    assert shorter(Tried(values, state, reason=reason)) == expected


@pytest.mark.slow
def test_every_shipped_candidate_is_a_configuration_that_goes_together() -> None:
    settings = build(compose_choice(["choose=standard"]), "choose", Choosing)
    assert len(settings.entries) > len(build(compose_choice(["choose=unsupervised"]), "choose", Choosing).entries)
    for values in settings.candidates(Budget(16)):
        words = [f"{key}={value}".replace(" ", "") for key, value in values.items()]
        System.from_config(composed(*words))


def test_bytes_that_are_known_before_fitting_are_codes_and_features_read() -> None:
    def least(*words: str) -> int:
        return least_bytes(System.from_config(composed(*words)), 100)

    assert least("method=itq", "bits=20", "index=flat") == 8
    assert least("method=itq", "bits=96", "index=flat") == 16
    assert least("method=itq", "bits=20", "index=flat", "ranking=asymmetric") == 3
    assert least("method=itq", "bits=20", "index=binary_hnsw", "index.m=16") == 3 + 128
    assert least("method=itq", "bits=20", "index.oversample=2") == 408
    assert least("method=pq", "bits=64", "index.oversample=2", "index.rescore_with=int8") == 108
    assert least("method=none", "index=hnsw", "index.m=32") == 400 + 256
    assert least("method=none", "index=pq_fastscan", "index.nbits=256") == 32


@pytest.mark.parametrize(
    ("method", "index", "known"),
    [
        (RandomProjection(bits=20, seed=0), BinaryHnswEngine(m=4), 3 + 32),
        (NoMethod(), HnswEngine(m=4), 64 + 32),
        (NoMethod(), HnswSqEngine(m=4, dim=9, bits_per_dimension=4), 5 + 32),
        (NoMethod(), LshEngine(nbits=20), 3),
        (NoMethod(), PqFastScanEngine(nbits=32), 4),
        (NoMethod(), IvfPqEngine(nbits=32, nlist=4, nprobe=1), 4),
        (NoMethod(), IvfRabitqEngine(nbits=72, nlist=4, nprobe=1), 9),
    ],
    ids=lambda part: getattr(part, "option", None),
)
def test_bytes_known_before_fitting_are_never_more_than_those_measured(
    method: Method, index: Index, known: int
) -> None:
    x = np.random.default_rng(0).standard_normal((300, 16), dtype=np.float32)
    system = System(None, method, index)
    assert least_bytes(system, 16) == known
    system.fit(Features(x, np.zeros(300, np.int64), np.arange(300)), silent).build(system.encode(x, "gallery"))
    # Of a gallery so large that codebooks and the like are shared by many.
    assert known <= system.index.bytes_per_item(10**9)


def test_the_best_is_first_and_the_front_has_what_nothing_beats() -> None:
    generator = np.random.default_rng(0)
    costs = generator.integers(1, 5, (40, 3))
    rows = [
        ({"bits": number}, Point({}, [0.1 * quality] * 3 + [0.1 * quality + 0.04], float(size), float(ms), 1.0, None))
        for number, (quality, size, ms) in enumerate(costs)
    ]
    found = ranked(rows, 100)
    keys = [(-one.point.quality, one.point.bytes_per_item, one.point.ms) for one in found]
    assert keys == sorted(keys)
    for one, own in zip(found, keys, strict=True):
        beaten = any(
            all(theirs <= mine for theirs, mine in zip(other, own, strict=True)) and other != own for other in keys
        )
        assert one.on_front != beaten
        assert one.low < one.point.quality < one.high


def test_an_interval_holds_for_other_queries_and_for_the_best_of_many() -> None:
    generator = np.random.default_rng(0)
    missed = 0
    for _ in range(60):
        draws = generator.beta(4, 2, (15, 2, 150))
        rows = [({}, Point({}, values[:80].tolist(), 1.0, 1.0, 1.0, None)) for values in draws[:, 0]]
        best = ranked(rows, 150)[0]
        place = next(number for number, (_, point) in enumerate(rows) if point is best.point)
        missed += not best.low <= draws[place, 1].mean() <= best.high
    assert missed <= 4, "95 %, although the best of fifteen that are alike was chosen"


@pytest.fixture
def bench() -> Bench:
    """A budget of 16 bytes an item, and 10 queries among 40 items of noise."""
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((50, 8), dtype=np.float32), np.arange(50) % 3
    queries, gallery = (Features(x[rows], y[rows], np.arange(50)[rows]) for rows in (slice(10), slice(10, None)))
    judge = Judge(queries, gallery, gallery, Relevance(queries.y, gallery.y), "labels", "a shared label", "P@10")
    return Bench(judge, "P@10", Budget(16), silent, 1, 1000)


def test_what_was_fitted_is_kept_for_the_next_candidate_without_its_index(bench: Bench) -> None:
    config = composed("method=random_projection", "bits=16", "index=flat")
    first, second = System.from_config(config), System.from_config(config)
    fitted = bench._fit(config, first)
    index, method = weakref.ref(fitted.index), fitted.method
    del first, fitted
    assert index() is None, "an index may be larger than all else"
    again = bench._fit(config, second)
    assert again.method is method
    assert again.index is second.index


def test_a_candidate_that_comes_twice_is_measured_and_kept_once(bench: Bench, tmp_path: Path) -> None:
    kept: dict[str, Tried] = {}
    found = []
    for values in ({"index": "flat"}, {"index": "flat", "bits": 16}):
        config = composed("method=random_projection", "bits=16", "index=flat")
        candidate = Candidate(values, config, System.from_config(config), "known")
        found.append(measured_once(bench, candidate, kept, tmp_path))
    assert found[0].state == "measured"
    assert found[1].points is found[0].points
    assert found[1].values == {"index": "flat", "bits": 16}
    assert len((tmp_path / "measured.jsonl").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_few_queries_that_scored_alike_do_not_make_an_interval_a_point(value: float) -> None:
    def width(queries: int) -> float:
        (one,) = ranked([({}, Point({}, [value] * queries, 1.0, 1.0, 1.0, None))], 1000)
        assert 0 <= one.low <= value <= one.high <= 1
        return one.high - one.low

    assert width(1) == 1
    assert width(3) > 0.4
    assert width(500) < 0.02


@pytest.fixture
def chosen(bench: Bench, tmp_path: Path) -> Choice:
    """A candidate measured among 40 items for a run of 1,000."""
    rows = [({"method": "itq", "bits": 64}, Point({}, [0.5, 0.7], 8.0, 0.25, 4000.0, None))]
    tried = [Tried(values, "measured", "known", [point]) for values, point in rows]
    return Choice(tmp_path, ranked(rows, 100), [], tried, bench.judge, bench.items)


def printed(chosen: Choice, budget: Budget) -> str:
    console = Console(file=io.StringIO(), width=100)
    _print(chosen, budget, "P@10", ["lshbench", "run"], console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_times_are_said_to_be_those_of_the_smaller_gallery(chosen: Choice) -> None:
    warning = "budget.ms=0.5 was compared with times among 40 items"
    assert "median, among these 40 items; the run's gallery has 1,000." in printed(chosen, Budget(8))
    assert "budget.ms" not in printed(chosen, Budget(8))
    assert warning in printed(chosen, Budget(8, 0.5))
    alike = printed(replace(chosen, items=40), Budget(8, 0.5))
    assert "median. The interval" in alike
    assert warning not in alike
    _write(chosen, Budget(8), "P@10", None)
    (file,) = chosen.folder.glob("choice*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert (found["gallery"], found["run_gallery"]) == (40, 1000)


def test_a_choice_is_not_overwritten_by_one_with_another_budget_or_other_candidates(chosen: Choice) -> None:
    more = replace(chosen, tried=[*chosen.tried, Tried({"method": "csq"}, "refused", reason="no labels")])
    others = [(chosen, Budget(16)), (chosen, Budget(16, 0.5)), (chosen, Budget(32)), (more, Budget(16))]
    for one, budget in [*others, others[0]]:
        _write(one, budget, "P@10", None)
        (name,) = re.findall(r"written to .*/(choice-.*\.json)\n", printed(one, budget))
        assert json.loads((chosen.folder / name).read_text(encoding="utf-8"))["budget"] == vars(budget)
    names = sorted(file.name.rpartition("-")[0] for file in chosen.folder.glob("choice*"))
    assert names == ["choice-16b", "choice-16b", "choice-16b-0.5ms", "choice-32b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "budget.bytes=None: expected bytes of an item"),
        (["budget.bytes=16", "bits=16,32"], "bits=16,32: expected one value, as candidates are an option of choose"),
        (["budget.bytes=16", "method=itq"], "method=itq: expected no such key, as the candidates"),
        (["budget.bytes=16", "choose=standart"], "did you mean choose=standard?"),
        (["budget.bytes=16", "dataset=folders"], "did you mean dataset=folder?"),
    ],
)
def test_wrong_use_is_one_message(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    from lshbench.commands.choose import main

    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_tune_takes_one_value_a_key(capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("optuna", reason="needs the extra: pip install -e '.[tune]'")
    from lshbench.commands.tune import main

    with pytest.raises(SystemExit) as stopped:
        main(["bits=16,32"])
    assert stopped.value.code == 2
    assert (
        "bits=16,32: expected one value; values to try are a list: tune.search.bits=[16,32]" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_killed_choice_goes_on_and_the_winner_keeps_its_claims_on_the_queries(tmp_path: Path, lshbench) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = tmp_path / "images" / ("test" if number % 5 == 0 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(folder / f"{number}.png")
    for name, text in (
        ("mortal.py", MORTAL),
        ("method/mortal.yaml", "# Mortal\nname: mortal\n_target_: mortal.Mortal\nbits: ${bits}\nseed: ${seed}\n"),
        ("choose/mine.yaml", CANDIDATES),
    ):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(text, encoding="utf-8")
    data = ("dataset=folder", "dataset.path=images", "backbone=pixels")
    command = ("choose", "--config-dir", "mine", *data, "choose=mine", "budget.bytes=12")

    (tmp_path / "deadly").touch()
    assert lshbench(*command, check=False).returncode == -9
    (measured,) = tmp_path.glob("outputs/choosing/*/measured.jsonl")
    before = measured.read_text(encoding="utf-8")
    assert [json.loads(line)["values"]["bits"] for line in before.splitlines()] == [48, 64]
    measured.write_text(before + before[:50], encoding="utf-8")
    (tmp_path / "deadly").unlink()
    done = lshbench(*command)
    assert measured.read_text(encoding="utf-8").startswith(before), "what was measured before is not measured again"
    assert "too large: flat: at least" in done.stdout
    assert "refused: hnsw m=1: index.m=1: expected at least 2" in done.stdout
    assert "over budget: ivf_rabitq nbits=96 nlist=4 nprobe=2: P@10" in done.stdout

    (file,) = measured.parent.glob("choice-12b-*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [one["P@10"] for one in found["ranked"]] == sorted((one["P@10"] for one in found["ranked"]), reverse=True)
    # 96 bits are 12 bytes, but two words of 64 bits where they are compared by Hamming distance.
    hamming = [one["values"] for one in found["ranked"] if one["values"].get("ranking") != "asymmetric"]
    assert {values["bits"] for values in hamming} == {48, 64}
    assert (len(found["ranked"]), len(found["over_budget"])) == (5, 2)
    printed = next(line for line in done.stdout.splitlines() if line.startswith("  lshbench run"))
    assert shlex.split(printed) == found["command"]
    lshbench(*found["command"][1:], "evaluation.plots=false")
    (run,) = finished_runs(tmp_path / "outputs")
    best = found["ranked"][0]
    assert best["low"] <= run.metrics.metrics["P@10"] <= best["high"]  # type: ignore[operator]
    assert run.metrics.memory.bytes_per_item <= 12
