"""The only user of onnxruntime: planes -> latents (analysis) and latents -> planes (synthesis), on the CPU.

Large pictures are computed in tiles, so that memory does not grow with the picture: each tile is computed
with MARGIN more positions on every side than are kept. That is more than the networks look at (9 positions),
and so the tiles join without a seam; only the float rounding differs from computing all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cwic.bundle import Bundle
from cwic.errors import ModelError

TILE = 128  # kept positions of the code on a side; 1024 pixels at stride 8
MARGIN = 12


class Latents(NamedTuple):
    """latents: float32 [n,h,w] in (0,1). importance: float32 [h,w] in (0,1), or None for an autoencoder."""

    latents: NDArray[np.float32]
    importance: NDArray[np.float32] | None


class Networks:
    """The networks of a bundle. Each is loaded at its first use: a decoder never loads the encoder."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        """threads: for one network at a time; None leaves the choice to onnxruntime (all cores)."""
        self._bundle = bundle
        self._threads = threads
        self._sessions: dict[str, Any] = {}

    def analysis(self, planes: NDArray[np.float32]) -> Latents:
        """Latents of planes float32 [3,H',W'] in [-1,1], both multiples of the stride. Raises ModelError."""
        stride = self._bundle.stride
        h, w = planes.shape[1] // stride, planes.shape[2] // stride
        made = {"latents": np.empty((self._bundle.channels, h, w), np.float32)}
        if self._bundle.kind == "li2018":
            made["importance"] = np.empty((1, h, w), np.float32)
        for tile in _tiles(h, w):
            self._run("encoder.onnx", "planes", planes, stride, made, 1, tile)
        return Latents(made["latents"], made["importance"][0] if "importance" in made else None)

    def synthesis(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Planes float32 [3,H',W'], unclipped, of latents float32 [n,h,w]. Raises ModelError."""
        stride = self._bundle.stride
        _, h, w = latents.shape
        planes = np.empty((3, h * stride, w * stride), np.float32)
        for tile in _tiles(h, w):
            self._run("decoder.onnx", "latents", latents, 1, {"planes": planes}, stride, tile)
        return planes

    def _run(
        self, file: str, name: str, source: NDArray[np.float32], source_scale: int,
        made: dict[str, NDArray[np.float32]], made_scale: int, tile: _Tile,
    ) -> None:  # fmt: skip
        """Fill one tile of the arrays in `made` with the network's outputs of the same names.

        All arrays are float32 [channels,height,width]; the scales are their elements per position of the
        code.
        """
        values = np.ascontiguousarray(source[tile.computed(source_scale)])[np.newaxis]
        try:
            results = self._session(file).run(list(made), {name: values})
        except Exception as error:  # onnxruntime has a dozen types of its own, all plain Exceptions
            raise ModelError(f"{self._bundle.path / file} fails: {error}") from error
        for (output, whole), result in zip(made.items(), results, strict=True):
            expected = (1, whole.shape[0], *(size // source_scale * made_scale for size in values.shape[2:]))
            if result.shape != expected or not np.isfinite(result).all():
                raise ModelError(
                    f"{self._bundle.path / file} gives {output} of shape {list(result.shape)}; "
                    f"{list(expected)} with finite values is allowed"
                )
            whole[tile.kept(made_scale)] = result[0][tile.kept_of_computed(made_scale)]

    def _session(self, file: str) -> Any:
        if file not in self._sessions:
            import onnxruntime  # here, because it takes longer to import than all the rest

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors only; they come back as exceptions
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            self._sessions[file] = onnxruntime.InferenceSession(
                (self._bundle.path / file).read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[file]


class _Span(NamedTuple):
    """Along one axis, in positions of the code: keep [start, stop) of what is computed from [first, last)."""

    start: int
    stop: int
    first: int
    last: int


class _Tile(NamedTuple):
    """Indices into arrays [channels,height,width]; scale: their elements per position of the code."""

    rows: _Span
    columns: _Span

    def computed(self, scale: int) -> tuple[slice, ...]:
        """Of the whole: what the tile is computed from, margins included."""
        return slice(None), *(slice(span.first * scale, span.last * scale) for span in self)

    def kept(self, scale: int) -> tuple[slice, ...]:
        """Of the whole: what the tile fills."""
        return slice(None), *(slice(span.start * scale, span.stop * scale) for span in self)

    def kept_of_computed(self, scale: int) -> tuple[slice, ...]:
        """Of what was computed: what the tile fills the whole with."""
        return slice(None), *(
            slice((span.start - span.first) * scale, (span.stop - span.first) * scale) for span in self
        )


def _tiles(h: int, w: int) -> Iterator[_Tile]:
    for rows in _spans(h):
        for columns in _spans(w):
            yield _Tile(rows, columns)


def _spans(size: int) -> list[_Span]:
    if size <= TILE + 2 * MARGIN:
        return [_Span(0, size, 0, size)]
    starts = range(0, size, TILE)
    ends = [min(start + TILE, size) for start in starts]
    return [
        _Span(start, end, max(start - MARGIN, 0), min(end + MARGIN, size))
        for start, end in zip(starts, ends, strict=True)
    ]
