"""Devices and precisions that a configuration may name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lshbench.errors import UsageError
from lshbench.runtime import device


@pytest.mark.parametrize("name", ["tpu9", "cuda:99", ""])
def test_a_device_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=f"device='{name}'"):
        device.resolve_device(name)


@pytest.mark.parametrize("name", ["cpu", "mps", "cuda:99"])
def test_what_is_no_gpu_or_not_here_has_no_name(name: str) -> None:
    assert device.gpu_name(name) is None


@pytest.mark.parametrize(
    ("flags", "expected"), [("sse2", "float32"), ("amx_tile", "bfloat16"), ("avx512_bf16", "bfloat16")]
)
def test_linux_tells_whether_the_processor_computes_in_bfloat16(
    flags: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "CPU_INFORMATION", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"model name\t: it\nflags\t\t: fpu {flags}\n", encoding="utf-8")
    assert device.resolve_precision("auto", "cpu") == expected
    assert device.resolve_precision("float32", "cpu") == "float32"


def test_elsewhere_torch_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(device, "CPU_INFORMATION", tmp_path / "not there")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert device.resolve_precision("auto", cpu) == "float32"
    assert device.resolve_precision("bfloat16", cpu) == "bfloat16"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert device.resolve_precision("auto", cpu) == "bfloat16"
    assert device.resolve_precision("float32", cpu) == "float32"
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert device.resolve_precision("auto", cpu) == "float32"
