"""Open tensors in PyTorch and safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lshbench.data.named_array import NamedArray, plain_array


def open_torch(path: Path) -> list[NamedArray]:
    """Open a tensor, or a dictionary or list of tensors, that PyTorch saved; no code in it is run."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: Any = load_file(path)
        except SafetensorError as error:
            raise ValueError(error) from error
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # UnpicklingError, RuntimeError, EOFError, KeyError, ...
            raise ValueError(
                "expected tensors, or a dictionary or list of them; anything else in such a file could run code, and "
                f"is never loaded ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            ) from error
    found: list[NamedArray] = []

    def visit(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{name}/{key}" if name else str(key), inner)
        elif isinstance(value, torch.Tensor):
            dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
            narrow = dense.dtype in (torch.bfloat16,)
            found.append(plain_array(name or path.stem, (dense.float() if narrow else dense).numpy(), path))
        elif isinstance(value, list | tuple) and value:
            if all(isinstance(inner, str | int) for inner in value):
                found.append(plain_array(name or path.stem, np.array(value), path))
            else:
                for place, inner in enumerate(value):
                    visit(f"{name}/{place}" if name else str(place), inner)

    visit("", content)
    return found
