"""Devices and precisions that a configuration may name."""

from __future__ import annotations

import pytest
import torch

from lshbench.errors import UsageError
from lshbench.runtime import device


@pytest.mark.parametrize("name", ["tpu9", "cuda:99", ""])
def test_a_device_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=f"device='{name}'"):
        device.resolve_device(name)


def test_auto_takes_bfloat16_where_the_processor_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
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
