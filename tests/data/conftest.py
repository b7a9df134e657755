"""What the tests of data sources share: caches of their own, and progress that says nothing or remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lshbench.types import Progress


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests out of the user's caches, and the user's settings out of the tests."""
    import datasets.config

    monkeypatch.setenv("LSHBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    # `datasets` reads its environment when it is imported, which another test may have done.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@contextmanager
def _silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


@pytest.fixture
def silent() -> Progress:
    """A progress that says nothing."""
    return _silent


class Told:
    """A progress that remembers: ``(description, total, unit, advanced)``."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int | None, str, int]] = []

    @contextmanager
    def __call__(self, description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        advanced = 0

        def advance(count: int) -> None:
            nonlocal advanced
            advanced += count

        yield advance
        self.lines.append((description, total, unit, advanced))


@pytest.fixture
def told() -> Told:
    """A progress that remembers what it was told."""
    return Told()
