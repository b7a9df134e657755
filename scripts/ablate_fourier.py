"""What each change of `fourier` against its publication is worth: one table, from one command.

    python scripts/ablate_fourier.py                                        # CIFAR-10 and CIFAR-100 from the Hub
    python scripts/ablate_fourier.py --run dataset.path=DIR --datasets cifar10_images --seeds 0

Every point is one `lshbench run` in a folder of its own below --out; a point whose metrics.json is there is not run
again, so that the table can be made in as many sittings as one likes.  "no map" has hidden layers wide enough to have
at least as many parameters as the default, and the same budget.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

VARIANTS: dict[str, tuple[str, list[str]]] = {
    "default": ("the default recipe", []),
    "no_map": ("no map, as many parameters", ["method.map_dim=0", "method.head.hidden=[{wide}]"]),
    "no_skip": ("the map alone", ["method.skip=false"]),
    "paper_band": ("the published band, frequencies in +-100", ["method.band=100"]),
    "own_encoder": ("queries by their own encoder alone", ["method.gallery_share=0"]),
    "equal_dropout": ("dropout in the gallery's encoder, too", ["method.gallery_dropout=.5"]),
    "no_class_codes": ("no class codes", ["method.class_weight=0"]),
    "no_ranking": ("class codes without ranking", ["method.ranking_weight=0"]),
    "relu": ("rectifiers for Gaussian error units", ["method.head.activation=relu"]),
    "linear": (
        "linear encoders: no normalisation, activation or dropout",
        ["method.head.batch_norm=false", "method.head.dropout=0"],
    ),
    "paper": ("the published objective", ["method.recipe=paper"]),
    "design": ("the study's recipe", ["method.recipe=design"]),
}


def point_folder(out: Path, dataset: str, variant: str, bits: int, seed: int) -> Path:
    """Return where a point's run lies."""
    return out / dataset / variant / f"{bits}-{seed}"


def run_point(folder: Path, dataset: str, overrides: list[str], bits: int, seed: int, extra: list[str]) -> None:
    """Run one point, unless it is there."""
    if (folder / "metrics.json").exists():
        return
    command = [sys.executable, "-m", "lshbench", "run", f"dataset={dataset}", "method=fourier", f"bits={bits}"]
    command += [f"seed={seed}", f"hydra.run.dir={folder}", "evaluation.plots=false", "reference.time=false"]
    command += [*overrides, *extra]
    print(" ".join(command[3:]), flush=True)
    subprocess.run(command, check=True, env=os.environ)


def equal_width(parameters: int, dim: int, bits: int) -> int:
    """Return the hidden width of two encoders without a map that have at least so many parameters in all."""
    fixed = 2 * dim + 1 + bits  # standardisation, and the hash layer's biases
    per_unit = 2 * (dim + 1 + 4) + bits  # weights, bias and normalisation of each side; the shared hash layer
    return -(-(parameters - fixed) // per_unit)


def read(folder: Path) -> dict[str, Any]:
    """Return a finished point's metrics."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def table(out: Path, datasets: list[str], variants: list[str], bits: int, seeds: list[int]) -> str:
    """Return the table of the points that are finished, as Markdown: mean mAP and standard deviation over seeds."""
    lines = ["| recipe | " + " | ".join(datasets) + " | parameters |", "| --- |" + " --- |" * (len(datasets) + 1)]
    for variant in variants:
        cells, parameters = [], ""
        for dataset in datasets:
            folders = [point_folder(out, dataset, variant, bits, seed) for seed in seeds]
            done = [read(folder) for folder in folders if (folder / "metrics.json").exists()]
            values = [metrics["metrics"]["mAP"] for metrics in done]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread} ({len(values)})" if values else "-")
            parameters = f"{done[0]['method']['parameters']:,}" if done else parameters
        lines.append(f"| {VARIANTS[variant][0]} | " + " | ".join(cells) + f" | {parameters} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/ablate_fourier"))
    parser.add_argument("--datasets", nargs="+", default=["cifar10_images", "cifar100_images"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run", nargs="*", default=[], help="further keys for every run, such as dataset.path=DIR")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    # "default" first: its parameters decide the width of "no map".
    variants = ["default", *(variant for variant in arguments.variants if variant != "default")]
    for dataset in arguments.datasets:
        for seed in arguments.seeds:
            for variant in variants:
                first = point_folder(out, dataset, "default", arguments.bits, arguments.seeds[0])
                wide = 0
                if (first / "metrics.json").exists():
                    metrics = read(first)
                    dim = metrics["dataset"]["dim"]
                    wide = equal_width(metrics["method"]["parameters"], dim, arguments.bits)
                overrides = [override.format(wide=wide) for override in VARIANTS[variant][1]]
                folder = point_folder(out, dataset, variant, arguments.bits, seed)
                run_point(folder, dataset, overrides, arguments.bits, seed, arguments.run)
    text = table(out, arguments.datasets, variants, arguments.bits, arguments.seeds)
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
