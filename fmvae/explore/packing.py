"""Programs and arrays as JSON and bytes; weights are stored in float16 where that changes no pixel by much."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmvae.explore.builder import NotForThePage
from fmvae.explore.program import Constant, Place, Program

# the largest difference of a pixel in [0, 1] from torch's at the latents that are tried; 2e-3 is promised at all
TOLERANCE = 5e-4
MOST = 65504.0  # in float16
TYPES = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4", "f16": "<f2"}


class Blob:
    """Collects arrays as one run of little-endian bytes; each begins at a multiple of four."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, values: Tensor, kind: str) -> dict[str, Any]:
        """Append values and return their place as JSON."""
        array = values.detach().cpu().numpy().astype(TYPES[kind])
        content = array.tobytes()
        content += bytes(-len(content) % 4)
        place = {"type": kind, "at": self._length, "length": array.size}
        self._parts.append(content)
        self._length += len(content)
        return place

    def base64(self) -> str:
        return base64.b64encode(b"".join(self._parts)).decode()


class Halves:
    """Which constants of a program are stored in float16.

    All are at first. As long as a pixel differs by more than ``TOLERANCE``, the constant that is to blame for
    most, by byte, is stored in float32.

    Args:
        decode: the model itself, from z (B, latent_dim) and a label to images.
        z: (B, latent_dim), where pixels are compared; each class has its share of them.

    Raises:
        NotForThePage: the program differs from the model even in float32.
    """

    def __init__(self, program: Program, decode: Callable[[Tensor, int], Tensor], z: Tensor):
        self.program = program
        num_classes = max(1, program.num_classes)
        self._batches = [(z[label::num_classes], label) for label in range(num_classes)]
        self._wanted = [decode(*batch) for batch in self._batches]
        self.full = {number for number, one in enumerate(program.constants) if not one.places and _too_large(one)}
        weights = {number for number, one in enumerate(program.constants) if not one.places}
        if (error := self.error(weights)) > TOLERANCE:
            raise NotForThePage(
                f"results that depend on more than z and the class (a pixel differs by {error:.2g})"
            )
        while self.error(self.full) > TOLERANCE and self.full != weights:
            blame = {number: self._blame(number, weights) for number in weights - self.full}
            self.full.add(max(blame, key=lambda number: blame[number]))
        self.worst = self.error(self.full)

    def error(self, full: set[int]) -> float:
        """Return the largest difference of a pixel if these constants are stored in float32."""
        kept = self.program.constants
        self.program.constants = [one if i in full or one.places else _halved(one) for i, one in enumerate(kept)]
        try:
            with torch.no_grad():
                found = [self.program.run(*batch) for batch in self._batches]
        finally:
            self.program.constants = kept
        # NaN is the largest difference of all
        return max(
            (one - wanted).abs().nan_to_num(torch.inf).max().item()
            for one, wanted in zip(found, self._wanted, strict=True)
        )

    def _blame(self, number: int, weights: set[int]) -> float:
        return self.error(weights - {number}) / self.program.constants[number].values.numel()

    def packed(self, blob: Blob) -> dict[str, Any]:
        """Append the constants to a blob, and return the program as JSON."""
        program = self.program

        def plain(value: Any) -> Any:
            return {"constant": value.number} if isinstance(value, Place) else value

        def stored(number: int, one: Constant) -> dict[str, Any]:
            places = "u16" if one.places and int(one.values.max()) < 2**16 else "u32"
            kind = places if one.places else "f32" if number in self.full else "f16"
            return {**blob.add(one.values, kind), "rows": len(one.values)}

        return {
            "latentDim": program.latent_dim,
            "shape": list(program.image_shape),
            "output": list(program.output),
            "operations": [
                {
                    "name": operation.name,
                    "inputs": [list(place) for place in operation.inputs],
                    "size": operation.size,
                    "settings": {name: plain(value) for name, value in operation.settings.items()},
                }
                for operation in program.operations
            ],
            "constants": [stored(number, one) for number, one in enumerate(program.constants)],
        }


def _halved(one: Constant) -> Constant:
    return one._replace(values=one.values.half().float())


def _too_large(one: Constant) -> bool:
    return bool(one.values.abs().max() > MOST)
