"""Convert a split's files with `datasets` into Arrow files, which are memory-mapped from then on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lshbench.data.hub_client import FULL_DISK, first_line, quiet
from lshbench.errors import UsageError
from lshbench.types import Progress

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """The data files of a repository and how they are read.

    Attributes:
        files: the data files of each split, relative to the repository's root (or absolute, for a local folder).
        module: the `datasets` loader that reads them, such as ``parquet``.
        options: the loader's options that differ from its defaults.
        features: the columns' declared types as ``Features.to_dict()``, or None to take those of the files.
        commit: the Hub's commit, or None for a local folder.
    """

    files: Mapping[str, list[str]]
    module: str
    options: Mapping[str, Any]
    features: Mapping[str, Any] | None
    commit: str | None = None


def convert(
    splits: Splits, split: str, paths: list[Path], where: str, progress: Progress, content: str | None = None
) -> datasets.Dataset:
    """Return a split as a memory-mapped table, converted by `datasets` the first time.

    Args:
        splits: how the files are read.
        split: the split's name.
        paths: its files.
        where: names it in messages.
        progress: receives the progress of the conversion.
        content: names the files' content, where the files' paths and times don't: a conversion is kept for each.

    Raises:
        UsageError: files that can't be read, or a full disk.
    """
    import datasets

    folder_of_content = None if content is None else str(Path(datasets.config.HF_DATASETS_CACHE) / "content" / content)

    size = sum(path.stat().st_size for path in paths)
    features = datasets.Features.from_dict(dict(splits.features)) if splits.features else None
    try:
        with quiet():
            builder = datasets.load_dataset_builder(
                splits.module,
                # Only this split's files: all splits of a builder are converted together.
                data_files={split: [str(path) for path in paths]},
                features=features,
                cache_dir=folder_of_content,
                **splits.options,
            )
            folder = Path(builder.cache_dir)
            if not folder.is_dir():
                log.info("converting %s (%.1f MB) into %s, once", where, size / 1e6, folder)
                with _growth(folder, size, f"converting {where}", progress):
                    builder.download_and_prepare(verification_mode="no_checks")
            try:
                return builder.as_dataset(split=split)
            except (OSError, ValueError) as error:
                log.warning("%s is damaged (%s) and is converted again", folder, first_line(error))
                builder.download_and_prepare(
                    verification_mode="no_checks", download_mode=datasets.DownloadMode.FORCE_REDOWNLOAD
                )
                return builder.as_dataset(split=split)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise UsageError(
                f"no disk space left for converting {where} ({size / 1e9:.1f} GB): set HF_HOME or "
                "HF_DATASETS_CACHE to a larger disk"
            ) from error
        raise UsageError(f"{where} can't be read: {first_line(error)}") from error
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise UsageError(f"{where} can't be read: {first_line(cause)}") from error


@contextmanager
def _growth(folder: Path, expected: int, description: str, progress: Progress) -> Iterator[None]:
    """Report how a folder grows beside its final place, as `datasets` offers no callback."""
    done = threading.Event()
    seen = 0
    with progress(description, total=expected or None, unit="bytes") as advance:

        def watch() -> None:
            nonlocal seen
            while not done.wait(0.5):
                written = sum(_size(path) for path in folder.parent.glob(f"{folder.name}*incomplete*/*"))
                advance(max(0, min(written, expected) - seen))
                seen = max(seen, min(written, expected))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
        advance(expected - seen)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
