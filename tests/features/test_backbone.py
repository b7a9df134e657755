"""Backbones refuse wrong values at once, load real weights, and pool and preprocess as they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lshbench.errors import UsageError
from lshbench.features.backbone import Backbone, PixelBackbone, TimmBackbone
from lshbench.features.encoder import Encoder, TimmEncoder
from lshbench.features.extract import encode_images
from lshbench.features.network import build_network, fold_batch_norms
from lshbench.features.preprocess import Preprocess
from lshbench.features.weights import find_weights
from tests.features.images import no_progress, pictures

LITE = {"name": "efficientnet_lite0", "model": "tf_efficientnet_lite0", "weights": "package"}
VIT = {"name": "test_vit", "weights": "random"}


def load(**keys: object) -> Encoder:
    return TimmBackbone(**keys).load("cpu", no_progress)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": None}, "backbone.name=None: expected a name"),
        ({"image_size": 0}, "backbone.image_size=0: expected a number of at least 8"),
        ({"image_size": "large"}, "backbone.image_size='large'"),
        ({"batch_size": 0}, "backbone.batch_size=0"),
        ({"workers": -1}, "backbone.workers=-1"),
        ({"unreadable": "ignore"}, "backbone.unreadable='ignore': expected stop or skip"),
        ({"pooling": "max"}, "backbone.pooling='max': expected auto, mean or cls"),
        ({"precision": "int8"}, "backbone.precision='int8'"),
        ({"crop_pct": 1.5}, "backbone.crop_pct=1.5"),
        ({"weights": "nowhere.safetensors"}, "backbone.weights='nowhere.safetensors'"),
        ({"weights": "package"}, "backbone.model='test_vit'.*tf_efficientnet_lite0"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_on_construction(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TimmBackbone(**{"name": "test_vit", **keys})  # type: ignore[arg-type]


def test_constructing_a_backbone_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lshbench.features.backbone import TimmBackbone\n"
        f"TimmBackbone(**{LITE!r})\n"
        "assert not {'torch', 'timm', 'torchvision', 'datasets', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_key_of_packaged_weights_needs_no_timm() -> None:
    code = (
        "import sys; from lshbench.features.backbone import TimmBackbone\n"
        f"key = TimmBackbone(**{LITE!r}).key('cpu', None)\n"
        "assert key['weights'].startswith('sha256:'), key\n"
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "change",
    [{"image_size": 64}, {"crop_pct": 0.9}, {"pooling": "mean"}, {"precision": "float16"}, {"weights": "package"}],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_features_changes_the_key(change: dict[str, object]) -> None:
    keys = {"name": "tf_efficientnet_lite0", "weights": "random", "precision": "float32"}
    first, second = (
        TimmBackbone(**taken).key("cpu", no_progress)  # type: ignore[arg-type]
        for taken in (keys, {**keys, **change})
    )
    assert first != second


def test_what_does_not_change_features_does_not_change_the_key() -> None:
    first = TimmBackbone(**LITE).key("cpu", no_progress)
    second = TimmBackbone(**{**LITE, "name": "mine"}, batch_size=4, workers=1, unreadable="skip")
    assert second.key("cpu", no_progress) == first


@pytest.mark.parametrize(("size", "batch"), [(64, 16), (160, 7), (256, 4)])
def test_a_batch_on_a_cpu_has_fewer_of_larger_images(size: int, batch: int) -> None:
    assert load(name="test_efficientnet", weights="random", image_size=size).batch_size == batch


@pytest.mark.parametrize(("size", "expected"), [("0", [698, 985]), pytest.param("2", [698], marks=pytest.mark.slow)])
def test_packaged_weights_know_what_is_in_a_picture(size: str, expected: list[int]) -> None:
    """ImageNet's classes 698 and 985 are palace and daisy; the pictures are those that scikit-learn ships."""
    import timm
    from sklearn.datasets import load_sample_images

    model = f"tf_efficientnet_lite{size}"
    encoder = load(**{**LITE, "model": model}, precision="float32")
    images = zip(load_sample_images().images, ("china.jpg", "flower.jpg"), strict=True)
    features = encode_images(images, encoder)
    network = timm.create_model(model)
    path = find_weights(model, "package", no_progress).path
    assert path is not None
    *_, weight, bias = torch.load(path, weights_only=True).values()
    network.classifier.load_state_dict({"weight": weight, "bias": bias})
    classes = network.classifier(torch.from_numpy(features)).argmax(1).tolist()
    assert classes[: len(expected)] == expected


def test_folding_batch_norms_changes_time_and_not_features() -> None:
    network, data = build_network(
        "test_resnet", find_weights("test_resnet", "random", no_progress), image_size=64, crop_pct=1.0, pooling="auto"
    )
    import timm

    torch.manual_seed(0)
    plain = timm.create_model("test_resnet", num_classes=0).eval()
    norms = [module for module in plain.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 2)
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    folded = fold_batch_norms(plain, (3, 64, 64))
    left = [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) > 5
    assert left == []
    images = torch.rand(4, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(folded(images), plain(images), rtol=1e-3, atol=1e-4)
    assert not [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert data["input_size"] == (3, 64, 64)


def tokens_of_the_last_block(size: int | None = None) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return what the last block and the final norm put out for a picture, found by hooks, and the pixels."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = timm.create_model("test_vit", num_classes=0, **({"img_size": size} if size else {})).eval()
    seen: dict[str, torch.Tensor] = {}
    body.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.__setitem__("block", output))
    body.norm.register_forward_hook(lambda module, inputs, output: seen.__setitem__("norm", output))
    data = timm.data.resolve_model_data_config(body)
    side = size or data["input_size"][1]
    pixels = pictures(1, side)[0]
    mean, deviation = np.array(data["mean"]), np.array(data["std"])
    image = torch.from_numpy(((pixels / 255 - mean) / deviation).transpose(2, 0, 1)[None]).float()
    with torch.inference_mode():
        body(image)
    return seen["block"], seen["norm"], pixels


def encoded_by(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    return encode_images([(pixels, "it")], encoder)[0]


def test_mean_pooling_averages_all_tokens_of_the_last_block_before_the_final_norm() -> None:
    block, _, pixels = tokens_of_the_last_block()
    encoder = load(**VIT, pooling="mean", precision="float32", crop_pct=1.0)
    assert np.allclose(encoded_by(encoder, pixels), block[0].mean(0).numpy(), atol=1e-4)


def test_cls_pooling_takes_the_class_token_after_the_final_norm() -> None:
    _, norm, pixels = tokens_of_the_last_block()
    encoder = load(**VIT, pooling="cls", precision="float32", crop_pct=1.0)
    assert np.allclose(encoded_by(encoder, pixels), norm[0, 0].numpy(), atol=1e-4)


def test_another_image_size_reaches_networks_of_fixed_size() -> None:
    block, _, pixels = tokens_of_the_last_block(size=96)
    encoder = load(**VIT, pooling="mean", precision="float32", image_size=96)
    assert np.allclose(encoded_by(encoder, pixels), block[0].mean(0).numpy(), atol=1e-4)


def test_mean_pooling_of_a_convolutional_network_averages_positions() -> None:
    encoder = load(name="test_efficientnet", weights="random", pooling="mean", precision="float32", image_size=64)
    assert isinstance(encoder, TimmEncoder)
    assert encoded_by(encoder, pictures(1, 64)[0]).shape == (encoder.dim,)


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    pixels = pictures(1, 64)[0]
    torch.manual_seed(5)
    first = encoded_by(load(**VIT), pixels)
    drawn = torch.rand(1)
    second = encoded_by(load(**VIT), pixels)
    torch.manual_seed(5)
    assert np.array_equal(first, second)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "resnet5O"}, "backbone.name='resnet5O': expected a model of timm.*resnet50"),
        ({"name": "test_vit.no_such_tag"}, "backbone.name='test_vit.no_such_tag': expected one of test_vit.r160_in1k"),
        ({"name": "test_vit", "weights": "random", "image_size": 33}, "backbone.image_size=33"),
        ({"name": "test_resnet", "weights": "random", "pooling": "cls"}, "backbone.pooling='cls'.*no class token"),
    ],
)
def test_what_only_timm_can_know_is_refused_when_loading(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(**keys)


def test_a_weights_file_gives_the_features_of_its_tensors(tmp_path: Path) -> None:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = timm.create_model("test_vit", num_classes=0)
    save_file(body.state_dict(), tmp_path / "mine.safetensors")
    pixels = pictures(1, 64)[0]
    found = encoded_by(load(name="test_vit", weights=str(tmp_path / "mine.safetensors")), pixels)
    assert np.array_equal(found, encoded_by(load(**VIT), pixels))


def test_a_weights_file_of_another_model_is_refused(tmp_path: Path) -> None:
    save_file({"something": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=r"other\.safetensors' lacks \d+ tensors of test_vit"):
        load(name="test_vit", weights=str(tmp_path / "other.safetensors"))


def test_a_damaged_weights_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="no safetensors file"):
        load(name="test_vit", weights=str(tmp_path / "bad.safetensors"))


def test_pixels_are_the_image_itself() -> None:
    backbone: Backbone = PixelBackbone("pixels", image_size=32)
    encoder = backbone.load("cpu", no_progress)
    picture = pictures(1, 32)[0]
    assert np.allclose(encoded_by(encoder, picture), picture.reshape(-1) / 255)
    assert encoder.dim == 3072


@pytest.mark.parametrize("size", [(32, 32), (50, 80), (81, 50), (300, 200), (64, 64)])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_preprocessing_is_timms(size: tuple[int, int], mode: str, interpolation: str) -> None:
    from timm.data import create_transform

    data = {
        "input_size": (3, 64, 64), "interpolation": interpolation, "crop_pct": 0.875, "crop_mode": mode,
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
    }  # fmt: skip
    image = Image.fromarray(pictures(1, 200)[0]).resize(size)
    expected = create_transform(**data, use_prefetcher=True)(image)
    found = Preprocess(data)(image, np.array(image))
    difference = np.abs(found.astype(int) - np.asarray(expected).transpose(1, 2, 0))
    assert found.shape == (64, 64, 3)
    # Pillow may resize rows first and torch columns: values between the two passes are rounded.
    assert difference.max() <= 2
    assert difference.mean() < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("size", "least", "step"), [("0", 0.85, 3), ("2", 0.87, 3)])
def test_packaged_weights_classify_imagenet(size: str, least: float, step: int) -> None:
    import timm
    from datasets import load_dataset

    if not (folder := os.environ.get("LSHBENCH_TEST_DATA")):
        pytest.skip("LSHBENCH_TEST_DATA is not set; it names a folder with evanarlian/imagenet_1k_resized_256")
    data = load_dataset(str(Path(folder) / "evanarlian" / "imagenet_1k_resized_256"), split="train")
    model = f"tf_efficientnet_lite{size}"
    encoder = load(**{**LITE, "model": model}, precision="float32")
    data = data.select(range(0, len(data), step))
    images = ((np.asarray(row["image"].convert("RGB")), str(number)) for number, row in enumerate(data))
    features = encode_images(images, encoder, threads=2)
    *_, weight, bias = torch.load(find_weights(model, "package", no_progress).path, weights_only=True).values()
    classifier = timm.create_model(model).classifier
    classifier.load_state_dict({"weight": weight, "bias": bias})
    predicted = classifier(torch.from_numpy(features)).argmax(1).numpy()
    assert (predicted == np.array(data["label"])).mean() > least
