"""The rows of scripts/bench_methods.py's tables: what is run, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        tables: of :data:`bench_methods_tables.TABLES`; it is run once for all of them.
        seconds: about what a run takes of a core, on CIFAR-10's images: only estimates of time rest on it.
        keys: what chooses it.
        title: what the tables show in place of its name.
    """

    tables: tuple[str, ...]
    seconds: float
    keys: tuple[str, ...]
    title: str = ""


NO_MAP_WIDTH = 774
"""The least hidden width that gives fourier without its map as many parameters as its default has at 64 bits, on 1,280
features (2,041,343 and 2,041,027)."""

WIDE_WIDTH = 1513
"""The least hidden width that gives every peer as many, likewise (2,042,150, or a few more)."""


def variant(title: str, *keys: str, method: str = "fourier", seconds: float = 90) -> Method:
    """Return a row of the ablation: fourier with some keys changed, or another of its options."""
    return Method(("ablation",), seconds, (f"method={method}", *keys), title)


def widened(method: str, seconds: float = 100) -> Method:
    """Return a method with a hidden layer that gives peers as many parameters as fourier has by default."""
    keys = (f"method={method}", f"method.head.hidden=[{WIDE_WIDTH}]")
    return Method(("wide",), seconds, keys, f"`{method}`, {WIDE_WIDTH:,} hidden units")


METHODS = {
    "fourier": Method(("labels", "ablation", "wide", "transfer"), 90, ("method=fourier",)),
    "neural": Method(("labels",), 53, ("method=neural",)),
    "orthohash": Method(("labels",), 37, ("method=orthohash",)),
    "csq": Method(("labels",), 37, ("method=csq",)),
    "dpn": Method(("labels",), 37, ("method=dpn",)),
    "greedyhash": Method(("labels",), 37, ("method=greedyhash",)),
    "hashnet": Method(("labels",), 37, ("method=hashnet",)),
    "fourier-no-map": variant("no map, as many parameters", "method.map_dim=0", f"method.head.hidden=[{NO_MAP_WIDTH}]"),
    "fourier-no-skip": variant("the map alone", "method.skip=false"),
    "fourier-paper-band": variant("the published band, frequencies in ±100", "method.band=100"),
    "fourier-own-encoder": variant("queries by their own encoder alone", "method.gallery_share=0"),
    "fourier-equal-dropout": variant("dropout in the gallery's encoder, too", "method.gallery_dropout=.5"),
    "fourier-no-class-codes": variant("no class codes", "method.class_weight=0"),
    "fourier-no-ranking": variant("class codes without ranking", "method.ranking_weight=0"),
    "fourier-relu": variant("rectifiers for Gaussian error units", "method.head.activation=relu"),
    "fourier-linear": variant(
        "linear encoders: no normalisation, activation or dropout",
        "method.head.batch_norm=false",
        "method.head.dropout=0",
    ),
    "fourier-paper": variant("the published objective", method="fourier_paper", seconds=180),
    "fourier-design": variant("two stages without the map", method="fourier_design", seconds=180),
    "fourier-wide": widened("fourier", 270),
    "neural-wide": widened("neural"),
    "orthohash-wide": widened("orthohash"),
    "csq-wide": widened("csq"),
    "dpn-wide": widened("dpn"),
    "greedyhash-wide": widened("greedyhash"),
    "hashnet-wide": widened("hashnet"),
    "fourier-transfer": Method(("transfer",), 90, ("method=fourier_transfer",)),
    "fourier-none": Method(("none", "transfer"), 90, ("method=fourier_unsupervised",)),
    "neural-none": Method(("none", "transfer"), 53, ("method=neural_unsupervised",)),
    "cibhash": Method(("none", "transfer"), 45, ("method=cibhash",)),
    "bihalf": Method(("none", "transfer"), 37, ("method=bihalf",)),
    "spectral": Method(("none",), 8, ("method=spectral",)),
    "itq": Method(("none", "transfer"), 9, ("method=itq",)),
    "pca_rotation": Method(("none", "transfer"), 8, ("method=pca_rotation",)),
    "pca_sign": Method(("none",), 8, ("method=pca_sign",)),
    "random_projection": Method(("none", "transfer"), 5, ("method=random_projection",)),
}
"""In the order in which they are run: the most wanted and longest first, so that short runs fill the end."""


def label(method: str, table: str) -> str:
    """Return what a table shows for a row; the one that mixes them says which are trained with labels."""
    row = METHODS[method]
    name = row.title or f"`{row.keys[0].removeprefix('method=')}`"
    return f"{name}, with labels" if table == "transfer" and "none" not in row.tables else name
