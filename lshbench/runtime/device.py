"""Where networks run, and in which precision.

Imports torch: import this module where a network is used, not from the command line.
"""

from __future__ import annotations

import torch

from lshbench.errors import wrong_value


def resolve_device(name: str) -> torch.device:
    """Return the device that a configuration means: with ``auto``, a GPU if there is one.

    Raises:
        UsageError: a device that torch doesn't know or that isn't there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise wrong_value("device", name, "auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise wrong_value("device", name, f"one that is here: auto, cpu, or one of {torch.cuda.device_count()} GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise wrong_value("device", name, "one that is here, such as cpu")
    return device


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the precision in effect: with ``auto``, bfloat16 where the processor computes in it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    return "bfloat16" if device.type == "cpu" and _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    # Private names, as older versions have no public ones.
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        try:
            if getattr(torch.cpu, name)():
                return True
        except (AttributeError, RuntimeError):
            continue
    return False
