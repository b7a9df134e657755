"""Every trained method and the image encoders on a GPU; skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lshbench.config import build
from lshbench.features.backbone import TimmBackbone
from lshbench.features.extract import encode_images
from lshbench.methods.base import Method
from tests.conftest import Command
from tests.features.images import jpeg, no_progress, pictures
from tests.methods.test_contract import METHODS, data, encode, node, silent

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

TRAINED = [variant for variant in METHODS if "device" in node(variant)]


def fitted(variant: str, device: str, precision: str = "float32") -> Method:
    keys = node(variant) | {"device": device}
    keys["training"] = keys["training"] | {"precision": precision}
    return build({"method": keys}, "method", Method).fit(data()[0], silent)


@pytest.mark.parametrize("variant", TRAINED)
def test_a_method_trained_on_a_gpu_encodes_alike_on_a_cpu(variant: str) -> None:
    _, queries = data()
    method = fitted(variant, "cuda")
    state = method.state()
    assert all(isinstance(value, np.ndarray) for value in state.values())
    again = build({"method": node(variant)}, "method", Method).restore(state)
    for side in ("gallery", "query"):
        there = encode(method, queries, side, projections=True).projections
        here = encode(again, queries, side, projections=True).projections
        assert np.isfinite(there).all()
        np.testing.assert_allclose(there, here, rtol=2e-3, atol=2e-3 * np.abs(here).max())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", TRAINED)
def test_the_same_seed_gives_the_same_codes(variant: str, precision: str) -> None:
    first, second = (fitted(variant, "cuda", precision) for _ in range(2))
    assert np.array_equal(encode(first, data()[1]).packed, encode(second, data()[1]).packed)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit"])
def test_images_have_the_features_that_they_have_on_a_cpu(model: str, precision: str) -> None:
    images = [(jpeg(picture), "it") for picture in pictures(150)]
    keys = {"weights": "random", "image_size": 64}
    here, there = (
        encode_images(images, TimmBackbone(model, precision=kind, **keys).load(device, no_progress), threads=4)  # type: ignore[arg-type]
        for device, kind in (("cpu", "float32"), ("cuda", precision))
    )
    cosine = (here * there).sum(1) / np.linalg.norm(here, axis=1) / np.linalg.norm(there, axis=1)
    assert cosine.min() > (0.9999 if precision == "float32" else 0.99)


def test_a_run_takes_the_gpu_by_itself_and_names_it(lshbench: Command, tmp_path: Path) -> None:
    done = lshbench("run", "bits=16", "method.training.epochs=2", "evaluation.plots=false", "hydra.run.dir=run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["environment"]["gpu"] == torch.cuda.get_device_name()
    assert metrics["metrics"]["mAP"] > metrics["reference"]["cosine"]["mAP"]
    assert "Traceback" not in done.stderr
