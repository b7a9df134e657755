"""Weights from the Hub: downloaded once, retried, then used without it; a Hub out of reach is explained."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.command import run_code
from tests.hub_server import HubServer

NAME = "test_vit.r160_in1k"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a small model as timm publishes them."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models")
    repository = folder / "timm" / NAME
    repository.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        body = timm.create_model(NAME, pretrained=False)
    save_file(body.state_dict(), repository / "model.safetensors")
    settings = {key: value for key, value in body.default_cfg.items() if key != "hf_hub_id"}
    (repository / "config.json").write_text(
        json.dumps({"architecture": "test_vit", "num_classes": 1000, "pretrained_cfg": settings}, default=str)
    )
    return folder


def encode(home: Path, endpoint: str, name: str = NAME, **environment: str) -> subprocess.CompletedProcess:
    code = textwrap.dedent(f"""
        import hashlib, logging, sys
        from lshbench.errors import UsageError
        from lshbench.features.backbone import TimmBackbone
        from lshbench.features.extract import encode_images
        from tests.features.images import no_progress, pictures

        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        backbone = TimmBackbone({name!r}, precision="float32")
        try:
            print(backbone.key("cpu", no_progress)["weights"])
            found = encode_images([(pictures(1)[0], "it")], backbone.load("cpu", no_progress))
        except UsageError as error:
            print(error)
            sys.exit(2)
        print(hashlib.sha256(found.tobytes()).hexdigest())
    """)
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()
    }
    variables |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), **environment}
    root = Path(__file__).resolve().parents[2]
    return run_code(code, root, variables)


def expected_digest(models: Path) -> str:
    import hashlib

    from lshbench.features.backbone import TimmBackbone
    from lshbench.features.extract import encode_images
    from tests.features.images import no_progress, pictures

    file = models / "timm" / NAME / "model.safetensors"
    encoder = TimmBackbone(NAME, weights=str(file), precision="float32").load("cpu", no_progress)
    return hashlib.sha256(encode_images([(pictures(1)[0], "it")], encoder).tobytes()).hexdigest()


def test_weights_are_downloaded_with_retries_and_then_used_without_the_hub(models: Path, tmp_path: Path) -> None:
    server = HubServer(models, failures=2)
    with server.running():
        first = encode(tmp_path, server.endpoint)
    assert first.returncode == 0, first.stderr
    assert server.downloads == ["model.safetensors"]
    assert "try 2 of" in first.stderr
    identity, digest = first.stdout.split()
    assert identity.startswith(f"timm/{NAME}@")
    assert digest == expected_digest(models)
    # The server is stopped now.
    second = encode(tmp_path, server.endpoint)
    assert second.stdout == first.stdout, second.stderr


@pytest.mark.slow
def test_a_repository_named_outright_gives_the_same_features(models: Path, tmp_path: Path) -> None:
    server = HubServer(models)
    with server.running():
        done = encode(tmp_path, server.endpoint, name=f"hf-hub:timm/{NAME}")
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[1] == expected_digest(models)
    again = encode(tmp_path, server.endpoint, name=f"hf-hub:timm/{NAME}", HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout, again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_hub_out_of_reach_is_explained_soon_with_ways_around_it(tmp_path: Path, offline: str) -> None:
    done = encode(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert done.returncode == 2
    for part in (f"timm/{NAME}", "http://127.0.0.1:9", "backbone=efficientnet_lite0", "backbone.weights="):
        assert part in done.stdout


def test_a_repository_that_is_not_there_is_named(models: Path, tmp_path: Path) -> None:
    server = HubServer(models)
    with server.running():
        done = encode(tmp_path, server.endpoint, name="hf-hub:timm/nothing_here")
    assert done.returncode == 2
    assert "timm/nothing_here" in done.stdout
