"""A run's inputs: the data set, who is query, gallery and training, and the features of their items.

A run, a search in a finished run, and the benchmarks open them alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from lshbench.config import build
from lshbench.data.base import Dataset, Source
from lshbench.data.pixels import limit_pixels
from lshbench.data.values import expanded
from lshbench.features.backbone import Backbone
from lshbench.features.roles import Roles, load_roles
from lshbench.protocols.splits import EvaluationProtocol, Selection
from lshbench.protocols.unanswered import Unanswered, check_answered
from lshbench.relevance.base import GroundTruth, RelevanceRule, own_rows
from lshbench.relevance.labels import LabelRule
from lshbench.runtime import scratch
from lshbench.types import Features, Progress


@dataclass(frozen=True)
class OpenedData:
    """An opened data set and the items that a run takes of it.

    Attributes:
        dataset: its labels are read, its items not yet.
        selection: gallery, queries and training items.
        fingerprint: ``sha256:...`` of the content that the items come from.
        unanswered: queries that have nothing to find in the gallery.
        split_fingerprints: that of each split's part in it, by the split's name, where they are known.
    """

    dataset: Dataset
    selection: Selection
    fingerprint: str
    unanswered: Unanswered
    split_fingerprints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """Where a run's items come from, how they are selected and encoded; checked, nothing opened yet.

    Attributes:
        seed: of draws by the protocol and of subsets.
        device: where an image encoder runs.
        threads: that extraction may use.
        cache: the cache folder.
    """

    source: Source
    protocol: EvaluationProtocol
    relevance: RelevanceRule
    backbone: Backbone
    seed: int
    device: str
    threads: int
    cache: Path

    @classmethod
    def from_config(cls, config: dict[str, Any], threads: int, cache: Path) -> Self:
        """Return the inputs that a resolved configuration describes.

        Raises:
            UsageError: a key or value that can't be used.
        """
        protocol = build(config, "protocol", EvaluationProtocol)
        # Runs of earlier versions go by labels without saying so.
        relevance = build(config, "relevance", RelevanceRule) if config.get("relevance") else LabelRule()
        source = build(config, "dataset", Source)
        source.own_folders = (expanded(config["output"]).resolve(),) if config.get("output") else ()
        source.labels_needed = relevance.needs_labels
        backbone = build(config, "backbone", Backbone)
        limit_pixels(backbone.max_pixels)
        scratch.use_folder(cache)
        return cls(source, protocol, relevance, backbone, config["seed"], config["device"], threads, cache)

    def dataset(self, progress: Progress) -> Dataset:
        """Open the data set and return its items, those that the protocol makes of them if it makes any.

        Raises:
            UsageError: data that can't be used.
        """
        return self.protocol.arrange(self.source.open(self.cache, progress))

    def open(self, progress: Progress) -> OpenedData:
        """Open the data set, read its labels and select gallery, queries and training items.

        Raises:
            UsageError: data that can't be used, that lack what relevance goes by, or queries of which none has anything
                to find.
        """
        dataset = self.dataset(progress)
        selection = self.protocol.select(dataset, self.seed, self.source.max_gallery, self.source.max_queries)
        self.relevance.check(dataset, selection)
        unanswered = self.relevance.unanswered(dataset, selection, self.protocol.leave_one_out)
        check_answered(unanswered)
        items = selection.items()
        of_splits = dataset.split_fingerprints(items)
        return OpenedData(dataset, selection, dataset.fingerprint(items, of_splits), unanswered, of_splits)

    def encoder(self, data: OpenedData, progress: Progress) -> dict[str, Any] | None:
        """Return what features of images depend on besides them (:meth:`Backbone.key`); None for ready features."""
        return self.backbone.key(self.device, progress) if data.dataset.kind == "images" else None

    def load(self, data: OpenedData, progress: Progress) -> Roles:
        """Return the features of the selected items, from the cache or extracted."""
        return load_roles(
            data.dataset,
            asdict(data.selection),
            self.backbone,
            cache=self.cache,
            device=self.device,
            threads=self.threads,
            progress=progress,
            fingerprints=data.split_fingerprints,
        )

    def ground_truth(self, data: OpenedData, gallery: Features, queries: Features, progress: Progress) -> GroundTruth:
        """Return what is relevant to the queries, which the protocol may leave out of their own rankings."""
        own = np.full(len(queries), -1)
        if self.protocol.leave_one_out:
            own = own_rows(queries.ids, gallery.ids)
        return self.relevance.ground_truth(data.dataset, gallery, queries, own, self.cache, progress)
