"""What quantisers share that round each number of a vector: as many numbers are kept as the bytes have room for."""

from __future__ import annotations

from abc import abstractmethod

from lshbench.errors import wrong_value
from lshbench.methods.quantiser import Quantiser


class RoundingQuantiser(Quantiser):
    """A quantiser with a fixed number of bits for each number, and perhaps factors of the whole vector."""

    @abstractmethod
    def _room(self) -> int:
        """Return how many numbers the bytes have room for; refuse bytes that some would be left of."""

    def _check_dim(self, dim: int | str) -> int:
        room = self._room()
        if dim not in ("auto", room):
            raise wrong_value("method.dim", dim, f"auto, or {room}: as many numbers as {self.bytes} bytes hold")
        return room
