"""What quantisers share that round each number of a vector: as many numbers are kept as the bytes have room for."""

from __future__ import annotations

from lshbench.errors import wrong_value
from lshbench.methods.quantiser import Quantiser


class RoundingQuantiser(Quantiser):
    """A quantiser with a fixed number of bits for each number, and perhaps factors of the whole vector."""

    bits_per_dimension: int

    def __init__(self, bits: int, seed: int, bits_per_dimension: int, dim: int | str, max_points: int) -> None:
        self.bits_per_dimension = bits_per_dimension
        super().__init__(bits, seed, dim, max_points)

    def _room(self) -> int:
        """Return how many numbers the bytes have room for; refuse bytes that some would be left of."""
        return self.bits // self.bits_per_dimension

    def _check_dim(self, dim: int | str) -> int:
        room = self._room()
        if dim not in ("auto", room):
            raise wrong_value("method.dim", dim, f"auto, or {room}: as many numbers as {self.bytes} bytes hold")
        return room
