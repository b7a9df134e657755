"""Checkpoints of a training: weights and optimiser as safetensors, the curve as JSON in the file's header."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lshbench.training.history import Epoch

log = logging.getLogger(__name__)


class Checkpoint:
    """One file, replaced in a single step after each epoch.

    Args:
        path: the file.
        identity: what the training depends on; a file with another identity is not resumed from.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = Path(path)
        self.identity = json.dumps(identity, sort_keys=True)
        self._writable = True

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: dict[str, Tensor],
        history: list[Epoch],
    ) -> None:
        """Write everything that resuming needs; where that fails, warn and go on without, from then on."""
        if not self._writable:
            return
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        moments = {
            f"{number}.{name}": value
            for number, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
            if isinstance(value, Tensor)
        }
        parts = {"model": model.state_dict(), "best": best, "optimizer": moments}
        tensors = {
            f"{part}/{name}": value.detach().cpu().contiguous().clone()
            for part, values in parts.items()
            for name, value in values.items()
        }
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        rows = json.dumps([asdict(row) for row in history])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, metadata={"identity": self.identity, "history": rows})
            temporary.replace(self.path)
        except (OSError, SafetensorError) as error:
            self._writable = False
            log.warning("%s can't be written (%s): training goes on, but can't be resumed", self.path, error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def load(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: dict[str, Tensor],
        history: list[Epoch],
    ) -> bool:
        """Load a saved state; return False, changing nothing, if there is no file of this training."""
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return False
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            log.warning("%s can't be read (%s): training starts anew", self.path, error)
            return False
        if metadata.get("identity") != self.identity:
            log.info("%s belongs to another training: training starts anew", self.path)
            return False
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, key = name.partition("/")
            parts[part][key] = value
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        if shapes != {name: value.shape for name, value in parts["model"].items()}:
            log.info("%s belongs to another network: training starts anew", self.path)
            return False
        device = next(model.parameters()).device
        model.load_state_dict(parts["model"])
        best.update({name: value.to(device) for name, value in parts["best"].items()})
        state = optimizer.state_dict()
        state["state"] = {}
        for key, value in parts["optimizer"].items():
            number, _, name = key.partition(".")
            state["state"].setdefault(int(number), {})[name] = value
        optimizer.load_state_dict(state)
        history.extend(Epoch(**row) for row in json.loads(metadata["history"]))
        return True
