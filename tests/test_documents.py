"""The documents: their commands, links, tables, and what they must mention."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

# Registers the schema and the resolvers.
import lshbench.commands.run  # noqa: F401
from lshbench.commands.compose import compose as composed
from lshbench.commands.compose import compose_choice, compose_tuning, override
from lshbench.config import build, check_root, conf_folder, options
from lshbench.metrics.definitions import DEFINITIONS
from lshbench.system import System
from lshbench.tuning.candidates import Budget, Choosing
from lshbench.tuning.settings import Settings
from tests.data.tars import write_tar

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    if path.name != "CHANGELOG.md"  # which names what there is no more
}
TUTORIALS = ("README.md", "docs/guide.md")

NOT_RUN = (
    "--cfg", "--serve", "scripts/bench_", "dataset.repository=", "dataset=cifar", "dataset=imagenet1k",
    "backbone=timm", "backbone=vit_large", "experiment=", "tracker=", "lshbench choose",
)  # fmt: skip
"""Parts of commands that need the Hub, wait for a user, take hours, run nothing, or are run by other tests."""

OWN_WORDS = {
    "method": "docs/methods.md", "index": "docs/indexes.md", "protocol": "docs/protocols_and_metrics.md",
    "relevance": "docs/protocols_and_metrics.md",
    "dataset": "docs/guide.md", "backbone": "docs/guide.md", "experiment": "docs/guide.md",
    "tracker": "docs/guide.md", "tune": "docs/sweeps.md", "choose": "docs/choosing.md", "table": "docs/report.md",
}  # fmt: skip


def commands(*documents: str) -> list[str]:
    """Return the indented lines of documents that are commands of ours, each once, in order."""
    pattern = r"^ {4}(?:pip install [^\n]*&& )?((?:lshbench|python scripts/)[^\n#]*)"
    found = (line.strip() for name in documents for line in re.findall(pattern, TEXTS[name], flags=re.MULTILINE))
    return list(dict.fromkeys(found))


def starting(first: str) -> list[str]:
    return [command for command in commands(*TEXTS) if command.startswith(first)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the commands name: images in folders and tar files, pictures, features in a file."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for label, shade in (("dark", 40), ("light", 200)):
            place = tmp_path / "DIR" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                noise = generator.integers(-30, 30, (24, 24, 3))
                Image.fromarray((shade + noise).astype(np.uint8)).save(place / f"{number}.png")
        files = sorted((tmp_path / "DIR" / split).rglob("*.png"))
        for shard in range(2):
            members = [
                (f"{row}.{suffix}", content)
                for row, file in list(enumerate(files))[shard::2]
                for suffix, content in (("png", file.read_bytes()), ("txt", file.parent.name.encode()))
            ]
            write_tar(tmp_path / "DIR" / f"{split}-{shard:03}.tar", members)
    for name in ("cat.png", "dog.png"):
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), np.uint8)).save(tmp_path / name)
    labels = np.arange(120) % 4
    x = generator.normal(size=(120, 16)) + 2 * np.eye(16)[labels]
    np.savez(tmp_path / "features.npz", features=x.astype(np.float32), labels=labels)
    (tmp_path / "out").mkdir()
    for split in ("train", "test"):
        (tmp_path / "out" / f"{split}.parquet").touch()  # which a command there writes
        files = sorted((tmp_path / "DIR" / split).rglob("*.*"))
        lines = [f"{file.relative_to(tmp_path / 'DIR')} {file.parent.name}\n" for file in files]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    for name in ("database.txt", "glove-100-angular.hdf5"):
        (tmp_path / name).touch()
    (tmp_path / "sift").mkdir()
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jobs(command: str) -> Iterator[dict[str, Any]]:
    """Yield the resolved configuration of every run that an ``lshbench run`` command makes."""
    words = shlex.split(command)[2:]
    overrides = OverridesParser.create().parse_overrides([word for word in words if "=" in word])
    sweep = (
        BasicSweeper.split_arguments(overrides, max_batch_size=None)
        if "-m" in words or "experiment=design" in words
        else None
    )
    runs = sweep[0] if sweep else [[override.input_line for override in overrides]]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for run in runs:
            config = OmegaConf.to_container(compose("config", run), resolve=True)
            assert isinstance(config, dict)
            yield config


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(line, marks=() if line in commands("README.md") else pytest.mark.slow)
        for line in starting("lshbench run")
        if not re.search("--(help|config-dir)", line)
    ],
)
def test_every_run_in_the_documents_is_one_that_can_be_made(command: str, folder: Path) -> None:
    if "launcher=ray" in command and importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray's launcher: pip install -e '.[ray]'")
    for config in jobs(command):
        check_root(config)
        for group in ("dataset", "backbone", "protocol"):
            if config[group].get("path", "") is not None or config[group].get("repository", "") is not None:
                build(config, group, object)
        System.from_config(config)


def test_every_other_command_in_the_documents_is_one_that_there_is() -> None:
    for command in [
        *starting("lshbench search"),
        *starting("lshbench report"),
        *starting("lshbench choose"),
        *starting("lshbench tune"),
        *starting("python scripts/"),
    ]:
        words = shlex.split(command)
        path = ROOT / (words[1] if words[0] == "python" else f"lshbench/commands/{words[1]}.py")
        for word in words[2:]:
            if word.startswith("-"):
                assert f'"{word}"' in path.read_text(encoding="utf-8"), command
    for command in starting("lshbench ls "):
        assert list(options(command.split()[2])), command


def test_every_study_in_the_documents_is_one_that_can_be_made(tmp_path: Path) -> None:
    text = TEXTS["docs/sweeps.md"]
    (own,) = re.findall(r"`mine/(tune/\w+\.yaml)`:\n\n```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "tune").mkdir()
    (tmp_path / own[0]).write_text(own[1], encoding="utf-8")
    for command in starting("lshbench tune"):
        words = [word for word in shlex.split(command)[2:] if "=" in word]
        tune = compose_tuning([word for word in words if word.startswith("tune")], tmp_path)
        space = build({"tune": tune}, "tune", Settings).space
        values = [override(key, part.example) for key, part in space.items()]
        System.from_config(composed([*(word for word in words if not word.startswith("tune")), *values])[0])


def test_every_choice_in_the_documents_is_one_that_can_be_made(tmp_path: Path) -> None:
    text = TEXTS["docs/choosing.md"]
    (own,) = re.findall(r"`mine/(choose/\w+\.yaml)`:\n\n```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "choose").mkdir()
    (tmp_path / own[0]).write_text(own[1], encoding="utf-8")
    for command in starting("lshbench choose"):
        words = [word for word in shlex.split(command)[2:] if "=" in word]
        keys = compose_choice([word for word in words if re.match("choose|budget|target", word)], tmp_path)
        assert build(keys, "choose", Choosing).candidates(Budget.read(keys["budget"])), command


def test_every_table_that_a_command_writes_has_its_place() -> None:
    for command in commands(*TEXTS):
        words = shlex.split(command)
        if "--into" in words:
            document = TEXTS[words[words.index("--into") + 1]]
            name = words[words.index("--table") + 1]
            for end in ("begin", "end"):
                assert document.count(f"<!-- {name}:{end} -->") == 1, command


def test_the_readme_is_one_page_and_begins_with_two_commands() -> None:
    readme = TEXTS["README.md"]
    assert len(readme.splitlines()) <= 150
    first = [line.split("#")[0].strip() for line in readme.splitlines() if line.startswith("    ")][:2]
    assert first == ['pip install -e ".[dev]" && lshbench run', 'pip install -e ".[dev]" && pytest']
    assert len(commands("README.md")) >= 10
    figures = re.findall(r"\.\d{4} ± \.\d{4}", readme)
    assert len(figures) >= 20
    assert set(figures) <= set(re.findall(r"\.\d{4} ± \.\d{4}", TEXTS["docs/results.md"]))


@pytest.mark.parametrize("name", TEXTS)
def test_documents_show_no_machines_paths_and_link_to_what_is_there(name: str) -> None:
    assert "/work/" not in TEXTS[name]
    assert "@@" not in TEXTS[name]
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", TEXTS[name]):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{target}#{anchor}"


def test_every_path_that_a_document_names_is_there() -> None:
    for name, text in TEXTS.items():
        for path in re.findall(r"`((?:lshbench|conf|scripts|tests|docs)/[\w./-]*)`", text):
            assert (ROOT / path).exists() or "mine" in path, f"{name}: {path}"
    tree = TEXTS["ARCHITECTURE.md"].split("## The tree")[1].split("## ")[0]
    parents: dict[int, Path] = {}
    for indent, entry in re.findall(r"^ {4}( *)(\S+(?: \S+)*)", tree, flags=re.MULTILINE):
        for word in entry.split(" "):
            path = parents.get(len(indent) - 2, ROOT) / word
            assert path.exists(), path
        parents[len(indent)] = path


@pytest.mark.parametrize("group", OWN_WORDS)
def test_every_option_is_described(group: str) -> None:
    for option, _ in options(group):
        assert re.search(rf"`({group}=)?{option}`", TEXTS[OWN_WORDS[group]]), option


def test_every_published_definition_is_described() -> None:
    for name in DEFINITIONS:
        assert f"`{name}`" in TEXTS["docs/protocols_and_metrics.md"], name


def test_every_benchmark_is_described() -> None:
    text = "\n".join(TEXTS[name] for name in TEXTS)
    for path in (ROOT / "scripts").glob("*.py"):
        if "__main__" in path.read_text(encoding="utf-8"):
            assert f"scripts/{path.name}" in text, path.name


def test_the_method_that_contributing_adds_runs(lshbench, tmp_path: Path) -> None:
    blocks = [
        textwrap.dedent(block)
        for block in re.findall(r"(?:^ {7}.*\n|^\n)+", TEXTS["CONTRIBUTING.md"], flags=re.MULTILINE)
        if block.strip()
    ]
    source = next(block for block in blocks if "class Mine" in block)
    description = next(block for block in blocks if "_target_" in block)
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    option = tmp_path / "conf" / "method" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(description.replace("lshbench.methods.mine.Mine", "mine.Mine"), encoding="utf-8")
    small = ("backbone=pixels", "backbone.image_size=8", "evaluation.plots=false", "bits=16")
    path = f"{tmp_path}:{ROOT}"
    lshbench("run", "--config-dir", "conf", "method=mine", *small, env={"PYTHONPATH": path})
    assert list(tmp_path.glob("outputs/digits/mine/*/metrics.json"))


def test_the_citation_names_the_version_and_both_papers() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert {"message", "title", "authors"} <= set(citation)
    assert [reference["year"] for reference in citation["references"]] == [2021, 2023]
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]


@pytest.mark.slow
def test_the_commands_of_readme_and_guide_run_in_their_order(lshbench, folder: Path) -> None:
    for command in commands(*TUTORIALS):
        words = shlex.split(command)[1:]
        if any(part in command for part in NOT_RUN):
            continue
        if words[0] == "search":
            words[1] = str(next(path.parent for path in folder.glob("outputs/digits/*/*/metrics.json")))
        if command.startswith("lshbench"):
            lshbench(*words)
        else:
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (folder / "hits.png").is_file()
    run = next(path.parent for path in folder.glob("outputs/digits/*/*/metrics.json"))
    for block in re.findall(r"(?:^ {4}.*\n|^\n)+", TEXTS["docs/guide.md"], flags=re.MULTILINE):
        if "from lshbench" in block:
            program = f"RUN = {str(run)!r}\n{textwrap.dedent(block)}"
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-2000:]
            assert done.stdout.count("(") == 5, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted({command.split()[1] for command in starting("python scripts/bench_")}))
def test_a_script_in_the_documents_starts_with_its_arguments(script: str, folder: Path) -> None:
    program = """
import runpy, shlex, sys
for command in sys.argv[1:]:
    sys.argv = [*shlex.split(command)[1:], "--help"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, command
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *starting(f"python {script}")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
