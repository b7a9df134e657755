"""Every wrong use, and every place that can't be used, ends in exit code 2 and one message that says what."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.commands.refusals import explain, quoting_hint, taken
from lshbench.commands.run import _is_read
from lshbench.data.values import existing_path
from tests.conftest import Command

SMALL = (
    "dataset=digits", "dataset.max_gallery=50", "dataset.max_queries=10", "backbone=pixels", "backbone.image_size=8",
    "method=random_projection", "bits=16", "evaluation.plots=false",
)  # fmt: skip

YAML_DAMAGE = {
    "tab": (b"name: a\n\tbits: 3\n", r"line 2: no valid YAML: .*by blanks, not by tabs"),
    "twice": (b"name: a\nbits: 1\nbits: 2\n", r"line 3: no valid YAML: .*duplicate key bits"),
    "open": (b"name: [1, 2\nbits: 3\n", r"line 2: no valid YAML"),
    "latin": (b"# fine\nname: caf\xe9\n", r"line 2: expected text in UTF-8"),
}


def refused(lshbench: Command, *arguments: str, **keywords: object) -> str:
    """Return the one message of a command that is refused."""
    done = lshbench("run", *arguments, check=False, **keywords)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("damage", YAML_DAMAGE)
def test_a_damaged_yaml_is_named_with_its_line(damage: str, tmp_path: Path, lshbench: Command) -> None:
    content, message = YAML_DAMAGE[damage]
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / f"{damage}.yaml").write_bytes(content)

    assert re.search(f"{damage}.yaml, {message}", refused(lshbench, "--config-dir", "mine", f"method={damage}"))


PLACES = {
    "below a file": ("output=file/x", "output: file/x.* can't be made or written: Not a directory"),
    "where nothing can be made": ("output=/proc/x", "output: /proc/x can't be made"),
    "a name too long": (f"output={'x' * 300}", r"output: x+\.\.\. .*too long"),
    "a cache below a file": ("cache=file/x", "cache='file/x': expected a folder"),
    "a cache of a name too long": (f"cache={'x' * 300}", "cache='x+.*expected a folder"),
    "an unset variable": ("dataset.split_seed=${oc.env:NOT_SET}", "dataset.split_seed: .*NOT_SET"),
    "no option": ("experiment=[0]", r"experiment=\[0\]: expected the name of an option"),
    "a list where one is meant": ("bits=[16,32]", r"bits=\[16,32\]: expected a whole number; .* run -m bits=16,32$"),
    "a number that is not whole": ("bits=64.5", r"bits=64\.5: expected a whole number$"),
    "a word for a switch": ("evaluation.loss=perhaps", r"evaluation\.loss=perhaps: expected true or false"),
    "an open bracket": ("bits=[1,2", r"bits=\[1,2: can't be read .*in quotes"),
    "a seed that is no number": ("method.seed=nan", "method.seed=nan: expected a whole number"),
    "no number": ("pca.dim=nan", "pca.dim=nan: "),
    "a missing value": ("reference=???", "reference: can't be resolved: Missing mandatory value"),
    "a number for keys": ("reference=${bits}", "reference=16: expected keys below it"),
    "a name that is a number": ("index.name=1.5", r"index.name=1\.5: expected text"),
    "keys for a class": ("+mthod._target_.x=1", r"mthod\._target_=.*expected the import path of a class"),
    "no class": ("dataset._target_=..", r"dataset\._target_='\.\.' can't be imported"),
}


QUICK_PLACES = ("below a file", "a cache below a file", "an unset variable", "an open bracket", "no number")
"""Some of each kind: every one composes a configuration."""


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=[pytest.mark.slow] * (place not in QUICK_PLACES)) for place in PLACES]
)
def test_places_and_values_that_cannot_be_used_are_explained(place: str, tmp_path: Path, lshbench: Command) -> None:
    argument, message = PLACES[place]
    (tmp_path / "file").touch()

    assert re.search(message, refused(lshbench, *SMALL, argument))
    assert not list(tmp_path.rglob("metrics.json"))


NEAR = {
    "rnu bits=16": "no command 'rnu': .*did you mean `lshbench run`",
    "bits=16": "did you mean `lshbench run bits=16`",
    "report x --out-dir y": "--out-dir: no such flag; did you mean --out",
    "report": "required: DIR",
    "search": "required: RUN",
    "ls metod": "group='metod': expected dataset, .*did you mean method",
    "run --out-dir=x": "--out-dir: no such flag; keys are given without dashes: output=x",
    "run --multirn": "--multirn: no such flag; did you mean --multirun",
    "run --cfg jb": "--cfg/-c='jb': .*did you mean job",
    "run bits=16 --cfg job seed=1": "seed=1: flags stand before or behind all keys",
    "run method=kmens": r"'kmens'; did you mean method=kmeans\? \(lshbench ls method\)",
    "run dataset=qqq": "dataset=qqq: there is no option 'qqq'; there are: cifar10, .*torchvision",
    "run method=csq method.map_dim=8": "no such key; it is a key of method=fourier and of .*method has: ",
    "run index.probs=3": "no such key; index.probes is a key of index=buckets",
    "run method.sed=3": r"no such key; did you mean method\.seed",
    "run sed=3": r"no such key; did you mean seed\?",
    "run method.training.min_batches=1e3": r"min_batches=1000\.0: expected a whole number",
    "-sc install=bsh": "-sc='install=bsh': expected install=bash",
    "-sc": "-sc='': expected install=SHELL",
}


COMPOSED = [command for command in NEAR if command.startswith("run ") and command[4].islower()]
"""Commands that are refused when their configuration is composed, which takes longer."""


@pytest.mark.parametrize(
    "command", [pytest.param(command, marks=[pytest.mark.slow] * (command in COMPOSED[1:])) for command in NEAR]
)
def test_what_is_misspelt_gets_the_near_name(command: str, lshbench: Command) -> None:
    done = lshbench(*command.split(), check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert re.search(NEAR[command], done.stderr), done.stderr


@pytest.mark.parametrize(
    ("line", "word", "without"),
    [
        ("lshbench ", "report", "bits"),
        ("lshbench re", "report", "bits"),
        ("lshbench report --", "--out", "report"),
        ("lshbench report --format ", "latex", "--out"),
        ("lshbench ls ", "method", "--config-dir"),
        ("lshbench search --", "--picture", "search"),
    ],
)
def test_completion_knows_the_subcommands_and_their_flags(
    line: str, word: str, without: str, lshbench: Command
) -> None:
    found = lshbench("-sc", "query=bash", env={"COMP_LINE": line}).stdout.split()
    assert word in found
    assert without not in found


def test_a_working_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from lshbench.commands.run import main

    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as ended:
        main(["bits=16"])
    assert ended.value.code == 2
    assert "the working folder can't be read" in capsys.readouterr().err


PATHS = (
    "/x/epoch=9.npz",
    "~/x.npz",
    "/tmp/café.npz",
    "/a[1]/b.npz",
    "C:\\data\\x.npz",
    "./a b{c}.npz",
    "/x/\u4e2d=\u6587",
)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_it_stands(path: str) -> None:
    override = OverridesParser.create().parse_override(taken(f"dataset.path={path}", _is_read))
    assert (override.key_or_group, override.value()) == ("dataset.path", path)


@pytest.mark.parametrize("name", ["a,b.npz", " a.npz", "'x/a.npz", "~x.npz", "[1].npz"])
def test_a_path_that_is_there_is_taken_whatever_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).touch()
    assert OverridesParser.create().parse_override(taken(f"a.path={name}", _is_read)).value() == name
    assert existing_path("a.path", name) == tmp_path / name


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters=",$"), min_size=1, max_size=20))
def test_any_path_is_taken_as_it_stands(name: str) -> None:
    path = f"/{name}/x.npz"
    override = OverridesParser.create().parse_override(taken(f"dataset.path={path}", _is_read))
    assert override.value() == path


@pytest.mark.parametrize(
    "argument",
    ["bits=16,32", "index.probes=[1,4]", "seed=range(3)", "dataset.path=null", "-m", "~method", "a=1.5", "bits=[1"],
)
def test_other_arguments_are_left_alone(argument: str) -> None:
    assert taken(argument, _is_read) == argument


def test_defects_are_not_explained_away() -> None:
    assert explain(KeyError("a"), []) is None
    assert explain(TypeError("a"), ["bits=16"]) is None
    assert quoting_hint("what", ["-m"], _is_read) == "what"


@pytest.mark.slow
def test_a_path_that_needs_quotes_runs(tmp_path: Path, lshbench: Command) -> None:
    folder = tmp_path / "epoch=9 [é]"
    folder.mkdir()
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    np.savez(folder / "x.npz", x=x, y=np.arange(40) % 2)
    lshbench(
        "run", "dataset=features", f"dataset.path={folder}/x.npz", "method=random_projection", "bits=16",
        "evaluation.plots=false", "output=out",
    )  # fmt: skip
    assert len(list(tmp_path.glob("out/**/metrics.json"))) == 1
