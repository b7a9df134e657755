"""Devices and precisions of networks.  Torch is imported where only it can answer."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lshbench.errors import wrong_value

if TYPE_CHECKING:
    import torch

CPU_INFORMATION = Path("/proc/cpuinfo")


def resolve_device(name: str) -> torch.device:
    """Return the device of a configured name; ``auto`` is a GPU if there is one, else the CPU.

    Raises:
        UsageError: a device that torch doesn't know or that isn't there.
    """
    import torch

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


def gpu_name(name: str) -> str | None:
    """Return the name of the GPU that a configured device is, or None where it is none, or none that is here."""
    if name in ("cpu", "mps") or not _may_have_gpu():
        return None
    import torch

    device = torch.device("cuda" if name == "auto" else name)
    here = torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return torch.cuda.get_device_name(device) if here else None


def resolve_precision(precision: str, device: str | torch.device) -> str:
    """Return the precision in effect: with ``auto``, bfloat16 where the processor computes in it.

    Args:
        precision: as configured.
        device: as configured, or resolved.

    Raises:
        UsageError: a device that torch doesn't know or that isn't there.
    """
    name = str(device)
    if name == "auto" and not _may_have_gpu():
        name = "cpu"
    if name != "cpu":
        name = str(resolve_device(name))
    if precision != "auto":
        return precision
    if name.startswith("cuda"):
        import torch

        return "bfloat16" if torch.cuda.get_device_capability(name) >= (8, 0) else "float32"
    return "bfloat16" if name == "cpu" and _cpu_has_bfloat16() else "float32"


def _may_have_gpu() -> bool:
    """Whether torch could find a GPU here: where CUDA's driver can't be loaded and there is no AMD device, it can't."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cpu_has_bfloat16() -> bool:
    if CPU_INFORMATION.exists():
        lines = CPU_INFORMATION.read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        return bool({"avx512_bf16", "amx_tile"} & set(flags))
    import torch

    # Private names, as older versions have no public ones.
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        try:
            if getattr(torch.cpu, name)():
                return True
        except (AttributeError, RuntimeError):
            continue
    return False
