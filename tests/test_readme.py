"""The README's commands, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What needs the Hub, or hours, is composed and not run.
FROM_THE_HUB = (
    "dataset.repository=", "dataset=cifar", "dataset=imagenet1k", "backbone=timm", "backbone=vit_large",
    "experiment=design",
)  # fmt: skip


def commands() -> list[str]:
    """Return every indented line of the README that is a command of ours."""
    lines = re.findall(r"^ {4}((?:lshbench|python scripts/)[^\n#]*)", README, flags=re.MULTILINE)
    return [line.strip() for line in lines]


def prepare(folder: Path) -> None:
    """Make what the commands name: images in class folders, and features in a file."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for label, shade in (("dark", 40), ("light", 200)):
            place = folder / "DIR" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                noise = generator.integers(-30, 30, (24, 24, 3))
                Image.fromarray((shade + noise).astype(np.uint8)).save(place / f"{number}.png")
    for name in ("cat.png", "dog.png"):
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / name)
    labels = np.arange(120) % 4
    x = generator.normal(size=(120, 16)) + 2 * np.eye(16)[labels]
    np.savez(folder / "features.npz", features=x.astype(np.float32), labels=labels)


def test_the_readme_has_commands_and_shows_no_paths_of_a_machine() -> None:
    assert len(commands()) >= 15
    assert "/work/" not in README
    assert "@@" not in README


def test_every_picture_and_page_that_the_readme_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_readmes_commands_run(tmp_path: Path, shared_cache: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    environment = {**os.environ, "LSHBENCH_CACHE": str(shared_cache)}
    for command in dict.fromkeys(commands()):
        words = shlex.split(command)
        program = [sys.executable, *([] if words[0] == "python" else ["-m", "lshbench"])]
        arguments = words[1:]
        if arguments[0] == "run" and any(part in command for part in FROM_THE_HUB):
            arguments = ["run", "--cfg", "job", *arguments[1:]]
        if arguments[0] == "search":
            run = next(path.parent for path in (tmp_path / "outputs" / "digits").rglob("metrics.json"))
            arguments = ["search", str(run), *arguments[2:], *(["--help"] if "--serve" in arguments else [])]
        if "bench_" in command:
            arguments = [*arguments, "--help"]  # minutes on a quiet machine; that it starts is checked
        done = subprocess.run(
            [*program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
