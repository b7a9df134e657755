"""FourierHashNet (Roy et al., NeurIPS 2023, "Locality Sensitive Hashing in Fourier Frequency Domain for Soft
Set Containment Search"): features are mapped so that products of the two sides' maps estimate a dominance
similarity, the maps are reduced by an encoder on each side, and a hash layer that the sides share gives the
code.

Three recipes:

``paper``
    The published objective in its two stages (:mod:`lshbench.methods.fourier_stages`): T = 3, frequencies in
    +-100, ten of each component, a linear reduction to ten dimensions trained by the cross-entropy of (cos +
    1) / 2 on pairs; then the hash layer by ranking, fence and balance of one query against the gallery, the
    positives being those of least hinge distance.
``design``
    The two stages without the map: hidden layers 1024, 512, 256 and 128, a reduction of 512.
``default``
    A variant that is trained in one go: a narrow band of frequencies, the standardised features beside the
    map, a wide reduction, and a ranking term that is a softmax over the batch.  With labels, a term draws
    codes to one code per class; another can keep the geometry of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.device import resolve_device
from lshbench.errors import wrong_value
from lshbench.methods import losses
from lshbench.methods.base import BinaryHasher
from lshbench.methods.fourier_map import sample_frequencies
from lshbench.methods.fourier_network import FourierNetwork, Shape
from lshbench.methods.heads import Head, arrays, check_batch_size, load_arrays
from lshbench.methods.neighbors import NeighborGraph
from lshbench.methods.neural import neighbor_graph
from lshbench.methods.training import Terms, seeded, train_model
from lshbench.methods.training_data import Batch, TrainingData
from lshbench.methods.training_settings import Training
from lshbench.methods.validation import same_labels
from lshbench.types import Features, Progress, Side, Supervision


@dataclass(frozen=True)
class Recipe:
    """What a recipe sets; the keys of ``conf/method/fourier.yaml`` that may be left null."""

    head: Head
    training: Training
    map_dim: int = 256
    frequencies: int = 1
    threshold: float = 3.0
    band: float = 1.0
    scale: float = 0.3
    skip: bool = True
    unit_length: bool = False
    fence_weight: float = 0.05
    balance_weight: float = 0.05
    ranking_weight: float = 1.0
    class_weight: float = 1.0
    geometry_weight: float = 0.0
    temperature: float = 0.125
    geometry_temperature: float = 0.05
    gallery_dropout: float = 0.0


RECIPES = {
    "default": Recipe(Head(dropout=0.3), Training()),
    "paper": Recipe(
        Head(hidden=(10,), batch_norm=False, dropout=0.0),
        Training(
            epochs=30,
            batch_size=1024,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="constant",
            weight_decay=5e-4,
        ),
        frequencies=10,
        band=100.0,
        scale=1.0,
        skip=False,
        unit_length=True,
        fence_weight=0.1,
        ranking_weight=0.8,
        balance_weight=0.1,
        class_weight=0.0,
    ),
    "design": Recipe(
        Head(hidden=(1024, 512, 256, 128, 512), batch_norm=False, dropout=0.0),
        Training(
            epochs=10,
            batch_size=1024,
            optimizer="adam",
            learning_rate=1e-5,
            schedule="constant",
            weight_decay=0.0,
        ),
        map_dim=0,
        unit_length=False,
        fence_weight=0.01,
        balance_weight=0.01,
        ranking_weight=0.98,
        class_weight=0.0,
    ),
}
SETTINGS = [field.name for field in fields(Recipe) if field.name not in ("head", "training")]


class Fourier(BinaryHasher):
    """FourierHashNet; the arguments are the keys of ``conf/method/fourier.yaml``, None meaning what the
    recipe says.
    """

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        recipe: str = "default",
        supervision: Supervision = "labels",
        neighbors: int = 20,
        map_dim: int | None = None,
        frequencies: int | None = None,
        threshold: float | None = None,
        band: float | None = None,
        scale: float | None = None,
        skip: bool | None = None,
        unit_length: bool | None = None,
        fence_weight: float | None = None,
        balance_weight: float | None = None,
        ranking_weight: float | None = None,
        class_weight: float | None = None,
        geometry_weight: float | None = None,
        temperature: float | None = None,
        geometry_temperature: float | None = None,
        gallery_dropout: float | None = None,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed)
        if recipe not in RECIPES:
            raise wrong_value("method.recipe", recipe, "default, paper or design")
        if supervision not in ("labels", "none"):
            raise wrong_value("method.supervision", supervision, "labels or none")
        given = {name: value for name, value in locals().items() if name in SETTINGS and value is not None}
        chosen = replace(RECIPES[recipe], **given)
        self.settings = replace(chosen, head=chosen.head.updated(head), training=chosen.training.updated(training))
        self.recipe, self.supervision, self.neighbors = recipe, supervision, neighbors
        self.device = resolve_device(device)
        self.network: FourierNetwork | None = None
        self._check()

    def _check(self) -> None:
        for key, value, least in (
            ("neighbors", self.neighbors, 1),
            ("map_dim", self.settings.map_dim, 0),
            ("frequencies", self.settings.frequencies, 1),
        ):
            if value < least:
                raise wrong_value(f"method.{key}", value, f"at least {least}")
        for key in ("threshold", "band", "scale", "temperature", "geometry_temperature"):
            if getattr(self.settings, key) <= 0:
                raise wrong_value(f"method.{key}", getattr(self.settings, key), "a positive number")
        for key in ("fence_weight", "balance_weight", "ranking_weight", "class_weight", "geometry_weight"):
            if getattr(self.settings, key) < 0:
                raise wrong_value(f"method.{key}", getattr(self.settings, key), "0 or a positive number")
        if not 0 <= self.settings.gallery_dropout < 1:
            raise wrong_value("method.gallery_dropout", self.settings.gallery_dropout, "at least 0 and below 1")
        if not self.settings.head.hidden:
            raise wrong_value("method.head.hidden", [], "at least one width: the reduction of the map")
        check_batch_size(self.settings.training, self.settings.head)
        if not self.settings.map_dim and not self.settings.skip:
            raise wrong_value("method.skip", False, "true where method.map_dim=0, or the encoder sees nothing")

    def fit(self, train: Features, progress: Progress) -> Self:
        data = TrainingData(train, self.settings.training, self.seed, self.device, self.supervision)
        with seeded(self.seed, self.device):
            network = self._build(data.inputs).to(self.device)
            network.learn(train.x, self.seed)
            network.to(self.device)
            graph = neighbor_graph(data, self.neighbors, self.seed, progress) if self.supervision == "none" else None
            objective = Objective(self.settings, data, graph, self.bits).to(self.device)
        if self.recipe == "default":
            model = nn.ModuleList([network, objective])
            result = train_model(
                model,
                lambda batch: objective(network, batch),
                network,
                data,
                self.settings.training,
                self.seed,
                progress,
                self.checkpoint,
            )
            self.history, self.chosen_epoch = result.history, result.chosen_epoch
        else:
            from lshbench.methods.fourier_stages import train_in_stages

            self.history, self.chosen_epoch = train_in_stages(
                network, data, graph, self.settings, self.recipe, self.seed, progress, self.checkpoint
            )
        self.network = network
        return self

    def _build(self, inputs: int) -> FourierNetwork:
        settings = self.settings
        map_dim = min(settings.map_dim, inputs)
        shape = Shape(
            inputs=inputs,
            bits=self.bits,
            map_dim=map_dim,
            frequencies=settings.frequencies,
            threshold=settings.threshold,
            band=settings.band,
            scale=settings.scale,
            skip=settings.skip,
            hidden=settings.head.hidden,
            batch_norm=settings.head.batch_norm,
            dropout={"gallery": settings.gallery_dropout, "query": settings.head.dropout},
            unit_length=settings.unit_length,
        )
        drawn = sample_frequencies(
            map_dim * settings.frequencies,
            settings.threshold,
            settings.band,
            np.random.default_rng([self.seed, 7]),
        )
        return FourierNetwork(shape, drawn.reshape(map_dim, settings.frequencies))

    def project(self, x: np.ndarray, side: Side) -> np.ndarray:
        assert self.network is not None, "fit or restore first"
        self.network.eval()
        with torch.inference_mode():
            block = torch.tensor(np.asarray(x, np.float32), device=self.device)
            # The design hashes both sides by the gallery's network.
            return self.network(block, "gallery" if self.recipe == "design" else side).float().cpu().numpy()

    def state(self) -> dict[str, np.ndarray]:
        assert self.network is not None, "fit or restore first"
        return arrays(self.network)

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        self.network = self._build(len(state["standardise.mean"]))
        load_arrays(self.network, state)
        self.network.to(self.device).eval()
        return self


class Objective(nn.Module):
    """The default recipe's terms.

    Args:
        settings: weights and temperature.
        data: the training part.
        graph: neighbours, where they stand for labels.
        bits: the code's length.
    """

    class_codes: Tensor

    def __init__(self, settings: Recipe, data: TrainingData, graph: NeighborGraph | None, bits: int) -> None:
        super().__init__()
        self.settings, self.data, self.graph = settings, data, graph
        self.register_buffer("class_codes", torch.randn(data.classes, bits).sign())

    def forward(self, network: FourierNetwork, batch: Batch) -> Terms:
        if self.graph is None:
            return self._supervised(network, batch)
        return self._unsupervised(network, batch)

    def _supervised(self, network: FourierNetwork, batch: Batch) -> Terms:
        prepared = network.prepare(batch.x)
        queries = network.hash(network.reduce(prepared, "query"))
        gallery = network.hash(network.reduce(prepared, "gallery"))
        relevant = same_labels(batch.y, batch.y)
        terms = self._common(queries, gallery, relevant, paired=False)
        if batch.y.ndim == 1:
            targets = functional.one_hot(batch.y, len(self.class_codes)).float()
        else:
            targets = functional.normalize(batch.y.float(), p=1)
        scale, margin = self.class_codes.shape[1] ** 0.5, 0.2
        both = losses.class_softmax(queries, self.class_codes, targets, margin, scale) + losses.class_softmax(
            gallery, self.class_codes, targets, margin, scale
        )
        terms["class"] = self.settings.class_weight / 2 * both
        if self.settings.geometry_weight:
            terms["geometry"] = self.settings.geometry_weight * losses.geometry(
                torch.tanh(queries),
                torch.tanh(gallery),
                prepared.features,
                self.settings.temperature,
                self.settings.geometry_temperature,
            )
        return terms

    def _unsupervised(self, network: FourierNetwork, batch: Batch) -> Terms:
        assert self.graph is not None
        rows = self.graph.draw(batch.rows, batch.generator)
        partners, _ = self.data.take(rows)
        relevant = torch.from_numpy(self.graph.related(batch.rows, rows)).to(batch.x.device)
        relevant.fill_diagonal_(True)
        return self._common(network(batch.x, "query"), network(partners, "gallery"), relevant, paired=True)

    def _common(self, queries: Tensor, gallery: Tensor, relevant: Tensor, paired: bool) -> Terms:
        query_codes, gallery_codes = torch.tanh(queries), torch.tanh(gallery)
        codes = torch.cat([query_codes, gallery_codes])
        ranking = losses.contrastive(query_codes, gallery_codes, relevant, self.settings.temperature, paired)
        return {
            "ranking": self.settings.ranking_weight * ranking,
            "fence": self.settings.fence_weight * losses.mean_fence(codes),
            "balance": self.settings.balance_weight * losses.bit_balance(codes),
        }
