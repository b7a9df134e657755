"""Search in a finished run: the nearest gallery items of images or feature vectors.

    searcher = Searcher.open("outputs/digits/fourier/64-...")
    for answer in searcher.search(["cat.png"], k=5):
        for hit in answer.hits:
            print(hit.rank, hit.name, hit.caption, hit.distance)

Everything comes out of the run's folder: the method and PCA from ``model/``, the index from ``index/`` as memory maps.
Only an index that compares features, which are kept once for all runs, reads the feature cache.  Relative paths to data
are looked up from the folder that the run was made in, then from the current one.

A folder that was not made here, or was changed since, is opened alone: data, weights, the cache and classes that it
names are used only after the user says so; a data set also where the user names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lshbench.config import Trust, build, check_classes
from lshbench.errors import UsageError, wrong_value
from lshbench.run_folder import Run
from lshbench.run_folder.contents import CONFIG, GALLERY_CODES
from lshbench.run_folder.items import GalleryItems
from lshbench.run_folder.reader import damage
from lshbench.runtime.own import own_key
from lshbench.runtime.progress import silent
from lshbench.search.reopen import (
    OR_DATA,
    check_encoder_inside,
    check_outside,
    gallery_features,
    located,
    reopen_dataset,
    use_data,
)
from lshbench.system import System
from lshbench.types import Neighbors, Progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from lshbench.data.base import Dataset
    from lshbench.features.encoder import Encoder

Picture = str | Path | bytes | np.ndarray
"""An image file, its content, or pixels: uint8 or uint16 ``(h, w)``, ``(h, w, 3)`` or ``(h, w, 4)``."""


@dataclass(frozen=True)
class Hit:
    """Retrieved gallery item.

    Attributes:
        rank: 1 for the nearest; of equal Hamming distances the closest to the query's projections comes first.
        row: its row in the run's gallery (in ``codes/`` and ``neighbors.npz``).
        item: its number in the data set.
        name: what names it to a person, such as a file name.
        label: its label, or a list of them where an item may have several.
        class_name: the name of the label, or a list of them, or None if classes have no names.
        distance: Hamming distance, 1 - cosine, or asymmetric distance.
        tied: how many of the items compared are at this Hamming distance; None by another ranking.
    """

    rank: int
    row: int
    item: int
    name: str
    label: int | list[int]
    class_name: str | list[str] | None
    distance: float
    tied: int | None = None

    @property
    def caption(self) -> str:
        """Label as text."""
        names = self.class_name
        if names is None:
            names = [f"class {label}" for label in (self.label if isinstance(self.label, list) else [self.label])]
        return names if isinstance(names, str) else ", ".join(names) or "no label"


@dataclass(frozen=True)
class Answer:
    """Hits of a query: at most ``k`` hits, fewer where the index compared fewer items.

    Attributes:
        query: what names the query to a person.
        candidates: how many gallery items it was compared with.
    """

    query: str
    hits: list[Hit]
    candidates: int


class Searcher:
    """Search engine over a finished run's gallery.  Made by :meth:`open`; not for several threads at once.

    Attributes:
        run: what was opened.
        ranking: ``hamming``, ``cosine`` or ``asymmetric``, the kind of distance.
    """

    def __init__(
        self,
        run: Run,
        config: dict[str, Any],
        system: System,
        progress: Progress,
        trusted: bool = True,
        data_trusted: bool = True,
    ) -> None:
        self.run, self.trusted, self.data_trusted = run, trusted, data_trusted
        self.ranking = run.metrics.ranking
        self._config, self._system, self._progress = config, system, progress
        self._items = GalleryItems.open(run)
        self._labels = self._items.labels

    @classmethod
    def open(
        cls,
        run: Run | Path | str,
        *,
        device: str | None = None,
        progress: Progress = silent,
        trust: bool = False,
        data: Path | None = None,
        config_dir: Path | None = None,
    ) -> Self:
        """Open a finished run.

        Args:
            run: the run, its folder or its ``metrics.json``.
            device: where networks run, such as ``cpu``; None takes the run's own.
            progress: of downloads, and of extracting features that are no longer in the cache.
            trust: whether to use whatever the run names outside its folder, also where it wasn't made here.
            data: the file or folder of the run's data set, which is used in place of what the run names.
            config_dir: a folder of options, whose classes the run may name.

        Raises:
            UsageError: it isn't finished, its files are damaged or don't fit each other, there is no such device, or it
                names what lies outside its folder and may not use it.
        """
        run = run if isinstance(run, Run) else Run.open(Path(run))
        if device is not None:
            from lshbench.runtime.device import resolve_device

            resolve_device(device)  # refused even where nothing of the run would have used it
        trusted = trust or run.is_sealed_by(own_key())
        allowed = Trust(trusted, () if config_dir is None else (config_dir,))
        config = located(run, device)
        check_classes(config, allowed)
        named = trusted or data is not None
        if data is not None:
            use_data(run, config, data)

        def features() -> np.ndarray:
            what = f"its index compares features, of the data set {run.metrics.dataset.name}"
            check_outside(run, what, named, OR_DATA)
            check_encoder_inside(run, config, trusted)
            return gallery_features(run, config, progress)

        system = System.open(run, features, device=device, trust=allowed)
        return cls(run, config, system, progress, trusted, named)

    def __len__(self) -> int:
        """Return how many items the gallery has."""
        return len(self._labels)

    @property
    def threads(self) -> int:
        """Threads that the run used, as far as this process has them."""
        return int(self._config["threads"])

    @cached_property
    def encoder(self) -> Encoder:
        """The run's image encoder, loaded when it is first asked for.

        Raises:
            UsageError: the run has none, or its weights can't be had.
        """
        from lshbench.features.backbone import Backbone

        check_encoder(self.run)
        check_encoder_inside(self.run, self._config, self.trusted)
        with damage(self.run.path / CONFIG):
            encoder = build(self._config, "backbone", Backbone).load(self._config["device"], self._progress)
        if encoder.dim != (dim := self.run.metrics.dataset.dim):
            raise UsageError(f"{self.run.path} is damaged: an encoder of {encoder.dim} numbers for features of {dim}")
        if encoder.on_cpu:
            # Batches are filled up, so one picture would take as long as a batch of them.
            encoder.batch_size = 1
        return encoder

    def prepare(self, *, images: bool) -> None:
        """Warm up: load the encoder, and kernels that were compiled, before the first search.

        Args:
            images: whether images will be searched for, or feature vectors only.
        """
        if images:
            _ = self.encoder
        self.search_vectors(np.zeros((1, self.run.metrics.dataset.dim), np.float32), 1)

    def search(self, images: Sequence[Picture], k: int = 10) -> list[Answer]:
        """Return the nearest gallery items of each image.

        Args:
            images: files, their content, or pixels.
            k: how many at most, from 1 to the gallery's size.

        Raises:
            UsageError: ``k`` out of range, an image that can't be read (named), or a run of ready features.
        """
        from lshbench.features.extract import encode_images

        check_k(k, len(self))
        named = [_content(image, f"image {i}") for i, image in enumerate(images)]
        x = encode_images(named, self.encoder, self.threads)
        return self._answers(x, k, [name for _, name in named])

    def search_vectors(self, x: np.ndarray, k: int = 10, names: Sequence[str] | None = None) -> list[Answer]:
        """Return the nearest gallery items of each feature vector.

        Args:
            x: ``(n, d)`` of any real type, as the run's encoder gives them, or as its data set holds them.
            k: how many at most, from 1 to the gallery's size.
            names: of the queries; their numbers by default.

        Raises:
            UsageError: ``k`` out of range, vectors of another length, or values that aren't finite numbers.
        """
        check_k(k, len(self))
        dim = self.run.metrics.dataset.dim
        if x.ndim != 2 or x.shape[1] != dim or x.dtype.kind not in "fiu":
            raise UsageError(f"vectors of {x.dtype} {x.shape}: expected numbers (n, {dim}), as the run's features have")
        vectors = np.ascontiguousarray(x, np.float32)
        if not np.isfinite(vectors).all():
            bad = int(np.argmin(np.isfinite(vectors).all(axis=1)))
            raise UsageError(f"vectors hold NaN or infinite values, first in row {bad}: expected finite numbers")
        return self._answers(vectors, k, names or [f"vector {i}" for i in range(len(vectors))])

    @cached_property
    def dataset(self) -> Dataset:
        """The run's data set, for the pictures of hits; opened when it is first asked for.

        Raises:
            UsageError: it can't be found, has changed, or holds no images.
        """
        check_encoder(self.run)
        what = f"the pictures of its hits are in its data set, {self.run.metrics.dataset.name}"
        check_outside(self.run, what, self.data_trusted, OR_DATA)
        return reopen_dataset(self.run, self._config, self._progress)

    def image(self, hit: Hit) -> Image:
        """Return the picture of a hit, as RGB, from :attr:`dataset`."""
        return self.dataset.image(hit.item)

    def _answers(self, x: np.ndarray, k: int, names: Sequence[str]) -> list[Answer]:
        if not len(x):
            return []
        found = self._found(x, k)
        tied = np.zeros_like(found.ids) if found.tied is None else found.tied
        answers = []
        for name, *results, candidates in zip(names, found.ids, found.distances, tied, found.candidates, strict=True):
            ranked = enumerate(zip(*results, strict=True), start=1)
            hits = [
                self._hit(rank, int(row), float(distance), int(shared) or None)
                for rank, (row, distance, shared) in ranked
                if row >= 0
            ]
            answers.append(Answer(name, hits, int(candidates)))
        return answers

    def _found(self, x: np.ndarray, k: int) -> Neighbors:
        if self.ranking != "hamming" or self._codes is None:
            return self._system.search(self._system.encode(x, "query"), k)
        return self._system.search_for_people(self._system.encode(x, "query", projections=True), k, self._codes)

    @cached_property
    def _codes(self) -> np.ndarray | None:
        """The gallery's packed codes, by which ties are broken; None where the index has codes of its own."""
        bits = self.run.metrics.method.bits
        if bits is None or not self.run.has(GALLERY_CODES):
            return None
        return self.run.array(GALLERY_CODES, np.uint8, (len(self), (bits + 7) // 8))

    def _hit(self, rank: int, row: int, distance: float, tied: int | None) -> Hit:
        several = self._labels.ndim == 2
        labels = [int(label) for label in np.flatnonzero(self._labels[row])] if several else [int(self._labels[row])]
        classes = self._items.class_names
        names = None if classes is None else [classes[label] for label in labels]
        return Hit(
            rank,
            row,
            int(self._items.ids[row]),
            self._items.name(row),
            labels if several else labels[0],
            names if names is None or several else names[0],
            distance,
            tied,
        )


def check_k(k: int, gallery: int) -> None:
    """Check the number of hits against the gallery's size: a silent limit would look like a full answer.

    Raises:
        UsageError: it is below 1 or above the gallery's size.
    """
    if k < 1:
        raise wrong_value("k", k, "at least 1")
    if k > gallery:
        raise wrong_value("k", k, f"at most {gallery}, the items of the run's gallery")


def check_encoder(run: Run) -> None:
    """Check that a run has an image encoder.

    Raises:
        UsageError: the run has no image encoder.
    """
    dataset = run.metrics.dataset
    if dataset.backbone is None:
        raise UsageError(
            f"{run.path} is a run of ready features ({dataset.name}), and which network made them is not known: "
            f"it has no pictures and can't encode any; expected .npy files of vectors of {dataset.dim:,} numbers"
        )


def _content(image: Picture, name: str) -> tuple[bytes | np.ndarray, str]:
    if isinstance(image, bytes | np.ndarray):
        return image, name
    try:
        return Path(image).read_bytes(), str(image)
    except OSError as error:
        raise UsageError(f"{image} can't be read: {error.strerror}") from error
