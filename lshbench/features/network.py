"""Build a timm model as a feature extractor: load its weights, set its pooling, fold batch norms into convolutions."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lshbench.errors import UsageError, wrong_value
from lshbench.features.weights import HUB_PREFIXES, Weights, model_settings

log = logging.getLogger(__name__)

RANDOM_SEED = 0


class Pooled(nn.Module):
    """A timm model with its pooling: normalised images ``(n, 3, h, w)`` to features ``(n, d)``."""

    def __init__(self, body: nn.Module, pooling: str) -> None:
        super().__init__()
        self.body = body
        self.pooling = pooling
        self.channels_last = getattr(body, "output_fmt", "NCHW") == "NHWC"
        if pooling == "mean" and isinstance(getattr(body, "norm", None), nn.Module):
            body.norm = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        if self.pooling == "auto":
            return self.body(images).flatten(1)
        last = self.body.forward_features(images)  # type: ignore[operator]
        if self.pooling == "cls":
            return last[:, 0]
        if last.ndim == 4:
            return last.mean((1, 2) if self.channels_last else (2, 3))
        return last.mean(1)


def build_network(
    model: str, weights: Weights, *, image_size: int | None, crop_pct: float | None, pooling: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a timm model without its classifier, in float32 on the CPU.

    Returns:
        The network, ready for inference, and timm's data configuration (``input_size``, ``interpolation``,
        ``mean``, ``std``, ``crop_pct``, ``crop_mode``) with the size and crop in effect.

    Raises:
        UsageError: weights that don't fit the model, no class token to pool, an image size it can't take.
    """
    import timm

    # timm writes a line for each model it loads; the program says what matters itself.
    logging.getLogger("timm").setLevel(logging.WARNING)
    settings = None if model.startswith(HUB_PREFIXES) else model_settings(model)
    keywords: dict[str, Any] = {}
    if image_size is not None and settings is not None and settings.fixed_input_size:
        keywords["img_size"] = image_size
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            body = _create(timm, model, weights, keywords)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"backbone.name={model!r}: timm can't build it: {_first_line(error)}") from error
    body.eval().requires_grad_(False)
    data = timm.data.resolve_model_data_config(body)
    if image_size is not None:
        data["input_size"] = (3, image_size, image_size)
    if crop_pct is not None:
        data["crop_pct"] = crop_pct
    if pooling == "cls" and getattr(body, "cls_token", None) is None:
        raise wrong_value("backbone.pooling", pooling, f"auto or mean, as {model} has no class token")
    network = Pooled(body, pooling).eval()
    try:
        with torch.inference_mode():
            features = network(torch.zeros(1, *data["input_size"]))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise wrong_value(
            "backbone.image_size", data["input_size"][-1], f"a size that {model} takes ({_first_line(error)})"
        ) from error
    if features.ndim != 2:
        raise wrong_value("backbone.pooling", pooling, f"one that gives vectors; {model} gives {features.shape[1:]}")
    return fold_batch_norms(network, data["input_size"]), data


def _create(timm: Any, model: str, weights: Weights, keywords: dict[str, Any]) -> nn.Module:
    if weights.kind == "random":
        return timm.create_model(model, pretrained=False, num_classes=0, **keywords)
    if weights.kind == "package":
        body = timm.create_model(model, pretrained=False, **keywords)
        assert weights.path is not None
        tensors = torch.load(weights.path, map_location="cpu", weights_only=True).values()
        # The package's tensors are timm's in the same order under other names.
        body.load_state_dict(dict(zip(body.state_dict(), tensors, strict=True)))
        body.reset_classifier(0)
        return body
    if weights.kind == "file":
        assert weights.path is not None
        _check_tensors(timm.create_model(model, pretrained=False, num_classes=0, **keywords), model, weights.path)
    overlay = None
    if weights.path is not None and not model.startswith(HUB_PREFIXES):
        safe = weights.path.suffix == ".safetensors"
        tensors = load_file(weights.path) if safe else torch.load(weights.path, map_location="cpu", weights_only=True)
        overlay = {"state_dict": tensors}
    return timm.create_model(model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **keywords)


def _check_tensors(body: nn.Module, model: str, path: Path) -> None:
    """Raise UsageError for a file that lacks tensors of the model, which timm would leave at random values."""
    try:
        with safe_open(path, "pt") as file:
            held = set(file.keys())
    except (SafetensorError, OSError) as error:
        raise UsageError(f"backbone.weights={str(path)!r}: no safetensors file ({_first_line(error)})") from error
    missing = [name for name in body.state_dict() if name not in held]
    if missing:
        raise UsageError(
            f"backbone.weights={str(path)!r} lacks {len(missing)} tensors of {model}, the first of them "
            f"{missing[0]!r}: expected what timm's {model} gives by state_dict()"
        )


def fold_batch_norms(network: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """Fold each batch norm that directly follows a convolution into its weights, and return the new network.

    In inference a batch norm is one multiplication and addition a channel, which the convolution before it can
    take over: a fifth less time on EfficientNet.  Which norm follows which convolution is seen by running the
    network; the result is checked against the original and dropped if it differs.
    """
    folded = copy.deepcopy(network)
    example = torch.rand(2, *input_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made: dict[int, nn.Conv2d] = {}
    outputs: list[Tensor] = []  # kept alive, so that their ids stay theirs
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def saw_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made[id(output)] = module
        outputs.append(output)

    def saw_norm(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        if id(inputs[0]) in made and isinstance(module, nn.BatchNorm2d):
            pairs.append((made[id(inputs[0])], module))

    hooks = [
        module.register_forward_hook(saw_convolution if isinstance(module, nn.Conv2d) else saw_norm)
        for module in folded.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    with torch.inference_mode():
        folded(example)
    for hook in hooks:
        hook.remove()
    if not pairs or len({id(norm) for _, norm in pairs}) < len(pairs):
        return network
    names = {id(module): name for name, module in folded.named_modules()}
    with torch.no_grad():
        for convolution, norm in pairs:
            if norm.running_mean is None or norm.running_var is None:
                return network
            fused = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = fused.weight, fused.bias
            parent, _, child = names[id(norm)].rpartition(".")
            # timm's norms carry the activation that follows them.
            after = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
            setattr(folded.get_submodule(parent), child, nn.Sequential(*after) if after else nn.Identity())
    folded.requires_grad_(False)
    with torch.inference_mode():
        expected, found = network(example), folded(example)
    if not torch.allclose(expected, found, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        log.debug("batch norms are left as they are: folding them changes the features")
        return network
    return folded


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
