"""Data set repositories of the Hub: list, download and open their splits.

The data files of a split come from a local folder, the Hub, or (offline) the Hub's cache.  `huggingface_hub` downloads
them into its own cache; `datasets` converts each split once into Arrow files in its own cache, which are memory-mapped.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lshbench.data.conversion import Splits, convert
from lshbench.data.fingerprint import combine, file_digests
from lshbench.data.hub_client import (
    ATTEMPTS,
    FULL_DISK,
    STREAM_ATTEMPTS,
    ByteCounter,
    endpoint,
    first_line,
    literal,
    quiet,
    refusal,
    retried,
)
from lshbench.data.stored_file import DiskFile, HubFile, StoredFile
from lshbench.errors import UsageError
from lshbench.runtime.kept import Arrays, kept
from lshbench.types import Progress

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

PROBES = 3
"""Tries of the first request: that the Hub can't be reached should be known soon."""
PROBE_SECONDS = 10.0
SHARD = re.compile(r"-(\d+)-of-(\d+)\.")
RECORD_VERSION = 1


class Unreachable(Exception):
    """The Hub did not answer."""


class LocalRepository:
    """A folder in a repository's layout, or one that ``Dataset.save_to_disk`` wrote.

    Args:
        folder: the folder.
        configuration: which of its configurations, or None for the only one.
        cache: the cache folder, for hashes of files.
        key: the configuration key that named the folder.
    """

    def __init__(self, folder: Path, configuration: str | None, cache: Path, key: str = "dataset.path") -> None:
        self.folder = folder
        self.cache = cache
        self.name = str(folder)
        self.saved = (folder / "dataset_dict.json").is_file()
        if self.saved:
            with (folder / "dataset_dict.json").open(encoding="utf-8") as file:
                names = json.load(file)["splits"]
            files = {name: [str(path) for path in sorted((folder / name).glob("*.arrow"))] for name in names}
            self.splits = Splits(files, "saved", {}, None)
            return
        import datasets

        try:
            with quiet():
                builder = datasets.load_dataset_builder(str(folder), name=configuration)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise UsageError(
                f"{key}={str(folder)!r}: no data set in the Hub's layout (Parquet, CSV, JSON or image files, "
                f"or what save_to_disk wrote): {first_line(error)}"
            ) from error
        self.splits = _splits(builder, prefix="")

    def fetch(self, split: str, progress: Progress) -> list[Path]:
        """Return the split's files."""
        return [Path(path) for path in self.splits.files[split]]

    def stored(self, split: str) -> list[StoredFile]:
        """Return the split's files, to be read in parts."""
        return on_disk([Path(path) for path in self.splits.files[split]], self.cache)

    def open(self, split: str, progress: Progress) -> datasets.Dataset:
        """Return a split as a memory-mapped table."""
        if self.saved:
            import datasets

            with quiet():
                return datasets.load_from_disk(str(self.folder / split))
        paths = self.fetch(split, progress)
        # `datasets` would go by the files' times, which a rewritten file may share with its predecessor.
        content = combine(file_digests(paths, self.cache)).removeprefix("sha256:")[:16]
        return convert(self.splits, split, paths, f"{self.name}, split {split}", progress, content)


class HubRepository:
    """A data set repository of the Hub.

    Args:
        repository: ``owner/name``.
        revision: a branch, tag or commit; None for ``main``.
        configuration: which of its configurations, or None for the only one.
        cache: the cache folder, which keeps lists of the repositories' files.

    Raises:
        UsageError: no such repository, or no Hub and nothing in the cache: what was tried, and ways without
        the Hub.
    """

    def __init__(self, repository: str, revision: str | None, configuration: str | None, cache: Path) -> None:
        from huggingface_hub import constants

        self.name = repository
        self.revision = revision or "main"
        self.configuration = configuration
        self.cache = cache
        self.offline = bool(constants.HF_HUB_OFFLINE)
        self._folder: Path | None = None
        if self.offline:
            self.splits = self._from_cache("HF_HUB_OFFLINE is set")
            log.info("%s: HF_HUB_OFFLINE is set: the cached commit %s is used", repository, self.splits.commit)
            return
        try:
            commit = self._probe()
        except Unreachable as error:
            self.offline = True
            self.splits = self._from_cache(str(error))
            log.warning("%s; going on with the cached copy of %s, commit %s", error, repository, self.splits.commit)
            return
        recorded = self._read_record()
        log.info("%s: revision %s is commit %s", repository, self.revision, commit)
        if recorded is not None and recorded.commit != commit:
            log.warning("%s has moved on from commit %s, which was used before", repository, recorded.commit)
        if recorded is not None and recorded.commit == commit:
            self.splits = recorded
        else:
            self.splits = self._resolve(commit)
            self._write_record()

    def fetch(self, split: str, progress: Progress) -> list[Path]:
        """Return the split's files, downloaded where they aren't yet.

        Raises:
            UsageError: the download keeps failing, the disk is full, or (offline) files are missing.
        """
        wanted = list(self.splits.files[split])
        folder = self._cached_folder()
        if folder is not None and all((folder / path).is_file() for path in wanted):
            return [folder / path for path in wanted]
        if self.offline:
            raise self._not_cached(split)
        folder = self._download(split, wanted, progress)
        self._name_revision(wanted[0])
        return [folder / path for path in wanted]

    def stored(self, split: str) -> list[StoredFile]:
        """Return the split's files, to be read in parts: from the Hub, or its cache if they are all there.

        Empty where the Hub does not know the content's SHA-256, as of small files of text.

        Raises:
            UsageError: (offline) files of which nothing is known.
        """
        wanted = list(self.splits.files[split])
        folder = self._cached_folder()
        if folder is not None and all((folder / path).is_file() for path in wanted):
            return on_disk([folder / path for path in wanted], self.cache)
        commit = str(self.splits.commit)
        listed = combine(endpoint(), self.name, commit, wanted).removeprefix("sha256:")[:32]
        found = kept(self.cache / "hub" / f"files-{listed}.npz", "the sizes of files", partial(self._list, split))
        if not found["sha256"].all():
            return []
        return [
            HubFile(path, int(size), str(digest), self.name, commit, 1 if self.offline else STREAM_ATTEMPTS)
            for path, size, digest in zip(wanted, found["sizes"], found["sha256"], strict=True)
        ]

    def open(self, split: str, progress: Progress) -> datasets.Dataset:
        """Return a split as a memory-mapped table, downloaded and converted where it isn't yet."""
        paths = self.fetch(split, progress)
        return convert(self.splits, split, paths, f"{self.name}, split {split}", progress)

    def _probe(self) -> str:
        """Return the revision's commit.

        Raises:
            Unreachable: no answer after a few tries, or after one if the cache has a copy.
        """
        from huggingface_hub import HfApi, errors

        def ask() -> str:
            with quiet():
                return str(HfApi().dataset_info(self.name, revision=self.revision, timeout=PROBE_SECONDS).sha)

        given = f"dataset.repository={self.name!r}"
        tries = 1 if self._record_path().is_file() or self._cached_folder() is not None else PROBES
        try:
            return retried(ask, tries, f"asking {endpoint()} for {self.name}")
        except errors.RevisionNotFoundError as error:
            missing = f"{self.name} has no such branch, tag or commit"
            raise UsageError(f"dataset.revision={self.revision!r}: {missing}") from error
        except errors.HFValidationError as error:
            raise UsageError(f"{given}: expected owner/name: {error}") from error
        except Exception as error:
            if (refused := refusal(error, self.name)) is not None:
                raise refused from error
            raise Unreachable(f"{endpoint()} can't be reached ({first_line(error)})") from error

    def _resolve(self, commit: str) -> Splits:
        import datasets

        def resolve() -> Splits:
            with quiet():
                builder = datasets.load_dataset_builder(self.name, name=self.configuration, revision=commit)
            return dataclasses.replace(_splits(builder, prefix=f"hf://datasets/{self.name}@{commit}/"), commit=commit)

        try:
            return retried(resolve, ATTEMPTS, f"listing {self.name}")
        except (ValueError, RuntimeError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
            raise UsageError(f"dataset.repository={self.name!r} can't be read: {first_line(error)}") from error
        except Exception as error:
            if (refused := refusal(error, self.name)) is not None:
                raise refused from error
            raise UsageError(
                f"{self.name} could not be listed at {endpoint()}: {first_line(error)}. {self._ways()}"
            ) from error

    def _entries(self, wanted: list[str]) -> dict[str, Any]:
        """Return what the Hub knows of files by their paths; asked again where it answers badly."""
        from huggingface_hub import HfApi

        def ask() -> dict[str, Any]:
            batches = (wanted[start : start + 500] for start in range(0, len(wanted), 500))
            of_batch = partial(HfApi().get_paths_info, self.name, repo_type="dataset", revision=self.splits.commit)
            return {entry.path: entry for batch in batches for entry in of_batch(batch)}

        return retried(ask, ATTEMPTS, f"asking for the sizes of {self.name}")

    def _not_cached(self, split: str) -> UsageError:
        """Return the error of a split whose files can't be had now."""
        wanted, folder = list(self.splits.files[split]), self._cached_folder()
        missing = [path for path in wanted if folder is None or not (folder / path).is_file()]
        return UsageError(
            f"{self.name}: {len(missing)} of {len(wanted)} files of split {split!r} are not in the "
            f"Hub's cache (the first: {missing[0]}) and can't be downloaded now. {self._ways()}"
        )

    def _list(self, split: str) -> Arrays:
        """Return the sizes of a split's files, and the SHA-256 of their content, empty where it is not known."""
        wanted = list(self.splits.files[split])
        if self.offline:
            raise self._not_cached(split)
        try:
            entries = self._entries(wanted)
            found = [entries[path] for path in wanted]
        except Exception as error:
            if (refused := refusal(error, self.name)) is not None:
                raise refused from error
            raise UsageError(
                f"{self.name}: the files of split {split!r} could not be listed at {endpoint()}: {first_line(error)}"
            ) from error
        digests = [entry.lfs.sha256 if entry.lfs else "" for entry in found]
        return {"sizes": np.array([entry.size for entry in found], np.int64), "sha256": np.array(digests, str)}

    def _download(self, split: str, wanted: list[str], progress: Progress) -> Path:
        commit = self.splits.commit
        total = 0
        try:
            total = sum(getattr(entry, "size", 0) for entry in self._entries(wanted).values())
            count = len(wanted)
            log.info("downloading split %s of %s: %d files, %.1f MB", split, self.name, count, total / 1e6)
            with progress(f"downloading {self.name} ({split})", total=total or None, unit="bytes") as advance:
                counter = ByteCounter(advance)

                def download() -> Path:
                    return self._snapshot(commit, wanted, tqdm_class=counter.bar_class())

                return retried(download, ATTEMPTS, f"downloading {self.name}")
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise UsageError(
                    f"no disk space left for {self.name} ({total / 1e9:.1f} GB): set HF_HOME to a larger disk"
                ) from error
            if (refused := refusal(error, self.name)) is not None:
                raise refused from error
            raise UsageError(
                f"{self.name}: split {split!r} could not be downloaded from {endpoint()} in {ATTEMPTS} "
                f"tries: {first_line(error)}. Run the same command again to go on from here. {self._ways()}"
            ) from error

    def _name_revision(self, path: str) -> None:
        """Record the revision's commit in the Hub's cache, which a download by commit leaves out."""
        try:
            self._snapshot(self.revision, [path], tqdm_class=ByteCounter(lambda count: None).bar_class())
        except Exception as error:  # only other users of that cache need it
            log.debug("the Hub's cache holds no reference %s: %s", self.revision, error)

    def _cached_folder(self) -> Path | None:
        """Return the revision's folder in the Hub's cache, whatever it holds, or None."""
        if self._folder is None:
            known = getattr(self, "splits", None)
            try:
                # Only what is asked for is required to be there: nothing, as single splits are kept here.
                revision = (known and known.commit) or self.revision
                self._folder = self._snapshot(revision, ["no-such-file"], local_files_only=True)
            except Exception:  # not cached; each version of the library says so in its own way
                return None
        return self._folder

    def _snapshot(self, revision: str | None, paths: list[str], **keywords: Any) -> Path:
        """Return the folder of a revision in the Hub's cache, with the files of these paths downloaded."""
        from huggingface_hub import snapshot_download

        patterns = [literal(path) for path in paths]
        with quiet():
            folder = snapshot_download(
                self.name, repo_type="dataset", revision=revision, allow_patterns=patterns, **keywords
            )
        return Path(folder)

    def _from_cache(self, why: str) -> Splits:
        """Return the splits as an earlier contact recorded them, else as the files in the cache suggest."""
        if (recorded := self._read_record()) is not None:
            return recorded
        folder = self._cached_folder()
        if folder is None:
            raise UsageError(
                f"dataset.repository={self.name!r}: {why}, and {self.name} is not in its cache. {self._ways()}"
            )
        found = LocalRepository(folder, self.configuration, self.cache, key="dataset.repository").splits
        whole = {name: paths for name, paths in found.files.items() if _all_shards(paths)}
        return dataclasses.replace(found, files=whole, commit=folder.name)

    def _ways(self) -> str:
        return (
            "Ways without the Hub: dataset.path=FOLDER takes a local copy of the repository; HF_HUB_OFFLINE=1 takes "
            "what is in the Hub's cache (HF_HOME) without asking; dataset=digits needs neither"
        )

    def _record_path(self) -> Path:
        parts = (endpoint(), self.name, self.revision, self.configuration or "default")
        stem = "@".join(re.sub(r"[^\w.-]+", "--", part) for part in parts)
        return self.cache / "hub" / f"{stem}.json"

    def _write_record(self) -> None:
        path = self._record_path()
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            content = json.dumps({"version": RECORD_VERSION, **dataclasses.asdict(self.splits)})
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(content, encoding="utf-8")
            temporary.replace(path)
        except (OSError, TypeError) as error:  # only needed offline
            temporary.unlink(missing_ok=True)
            log.debug("%s was not written: %s", path, error)

    def _read_record(self) -> Splits | None:
        try:
            record = json.loads(self._record_path().read_text(encoding="utf-8"))
            if record.pop("version") == RECORD_VERSION:
                return Splits(**record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return None


def on_disk(paths: list[Path], cache: Path) -> list[StoredFile]:
    digests = file_digests(paths, cache)
    return [DiskFile(path.name, path.stat().st_size, digest, path) for path, digest in zip(paths, digests, strict=True)]


def _splits(builder: datasets.DatasetBuilder, prefix: str) -> Splits:
    files: dict[str, list[str]] = {}
    for split, paths in (builder.config.data_files or {}).items():
        files[str(split)] = [str(path).removeprefix(prefix) for path in paths]
    if not files:
        raise UsageError(f"{builder.dataset_name} has no data files")
    common = {"name", "version", "data_dir", "data_files", "description", "features"}
    options: dict[str, Any] = {}
    for field in dataclasses.fields(builder.config):
        value = getattr(builder.config, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name not in common and value != default and isinstance(value, str | int | float | bool | list):
            options[field.name] = value
    features = builder.info.features or getattr(builder.config, "features", None)
    return Splits(files, builder.name, options, features.to_dict() if features else None)


def _all_shards(paths: list[str]) -> bool:
    """Whether files called ``...-00001-of-00005...`` are all there; others are taken as whole."""
    counts = [int(found[2]) for path in paths if (found := SHARD.search(Path(path).name))]
    return not counts or len(counts) >= max(counts)
