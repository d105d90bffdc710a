"""The only user of onnxruntime: the networks of a bundle on whole pictures, on the CPU.

Large pictures are computed in tiles, so that memory does not grow with the picture: each tile is computed with a margin
on every side that is wider than the networks look, and so the tiles join without a seam; only the float rounding
differs from computing all at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cwic.bundle import Bundle
from cwic.errors import ModelError

# In positions of the code (autoencoder, li2018): 1024 pixels at stride 8. The networks look at 9 positions.
TILE, MARGIN = 128, 12
# In positions of z (flagship): 1024 pixels at stride 64. The networks look at 10 of y's positions at most.
SIDE_TILE, SIDE_MARGIN = 16, 4
SIDE_SCALE = 4  # positions of y on a side of one of z
NEVER = np.float32(1e9)  # a dead zone in which everything lies

Array = NDArray[np.float32]


class Latents(NamedTuple):
    """latents: float32 [n,h,w]. importance: float32 [h,w], or None for an autoencoder."""

    latents: NDArray[np.float32]
    importance: NDArray[np.float32] | None


class Networks:
    """The networks of a bundle. Each is loaded at its first use: a decoder never loads the encoder."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        """threads: for one network at a time; None leaves the choice to onnxruntime (all cores)."""
        self._bundle = bundle
        self._threads = threads
        self._sessions: dict[str, Any] = {}

    # ---- the paper's ----

    def analysis(self, planes: Array) -> Latents:
        """Latents of planes float32 [3,H',W'] in [-1,1], both multiples of the stride. Raises ModelError."""
        stride = self._bundle.stride
        made = {"latents": _Plane(self._bundle.channels, 1)}
        if self._bundle.kind == "li2018":
            made["importance"] = _Plane(1, 1)
        size = planes.shape[1] // stride, planes.shape[2] // stride
        found = self._run("encoder.onnx", {"planes": (planes, stride)}, made, size, (TILE, MARGIN))
        return Latents(found["latents"], found["importance"][0] if "importance" in found else None)

    def synthesis(self, latents: Array) -> Array:
        """Planes float32 [3,H',W'], unclipped, of latents float32 [n,h,w]. Raises ModelError."""
        made = {"planes": _Plane(3, self._bundle.stride)}
        found = self._run("decoder.onnx", {"latents": (latents, 1)}, made, latents.shape[1:], (TILE, MARGIN))
        return found["planes"]

    # ---- the flagship's: y [C,h,w] at 1/16 of the resolution, z [S,h/4,w/4], quality [1,h,w] in 0..1 ----

    def latents(self, planes: Array) -> Latents:
        """y, and the bundle's own map in levels before rounding. Raises ModelError.

        planes: float32 [3,H',W'] in [-1,1], sides multiples of 64.
        """
        size = planes.shape[1] // 64, planes.shape[2] // 64
        made = {"latents": _Plane(self._bundle.channels, SIDE_SCALE), "importance": _Plane(1, SIDE_SCALE)}
        found = self._run("encoder.onnx", {"planes": (planes, 64)}, made, size, (SIDE_TILE, SIDE_MARGIN))
        return Latents(found["latents"], found["importance"][0])

    def side(self, latents: Array, quality: Array) -> Array:
        """z, before rounding, of y and the local quality. Raises ModelError."""
        inputs = {"latents": (latents, SIDE_SCALE), "quality": (quality, SIDE_SCALE)}
        return self._flagship("side.onnx", inputs, "side", self._bundle.side_channels, 1)

    def index_sums(self, side: Array) -> Array:
        """What z says of the table indices: integers in float32 [C,h,w], the same everywhere. Raises ModelError."""
        return self._flagship("index.onnx", {"side": (side, 1)}, "sums", self._bundle.channels, SIDE_SCALE)

    def rounded(self, latents: Array, side: Array, quality: Array, dead_zone: Array) -> Array:
        """The residuals that y is rounded to with this dead zone [C,h,w]: integers in float32 [C,h,w]."""
        return self._means("found", latents, np.zeros_like(latents), side, quality, dead_zone)

    def decoded(self, residual: Array, side: Array, quality: Array) -> Array:
        """y_hat of the symbols at the local quality. Raises ModelError."""
        never = np.full_like(residual, NEVER)
        return self._means("decoded", np.zeros_like(residual), residual, side, quality, never)

    def _means(self, output: str, latents: Array, residual: Array, side: Array, quality: Array, zone: Array) -> Array:
        inputs = {
            "latents": (latents, SIDE_SCALE), "residual": (residual, SIDE_SCALE), "side": (side, 1),
            "quality": (quality, SIDE_SCALE), "dead_zone": (zone, SIDE_SCALE),
        }  # fmt: skip
        return self._flagship("means.onnx", inputs, output, self._bundle.channels, SIDE_SCALE)

    def planes(self, latents: Array, quality: Array) -> Array:
        """Planes float32 [3,H',W'], unclipped, of y_hat at the local quality. Raises ModelError."""
        inputs = {"latents": (latents, SIDE_SCALE), "quality": (quality, SIDE_SCALE)}
        return self._flagship("decoder.onnx", inputs, "planes", 3, 64)

    def _flagship(
        self, file: str, inputs: Mapping[str, tuple[Array, int]], output: str, channels: int, scale: int
    ) -> Array:
        """One output of a flagship's network; scales are elements on a side of a position of z."""
        array, per_side = next(iter(inputs.values()))
        size = array.shape[1] // per_side, array.shape[2] // per_side
        return self._run(file, inputs, {output: _Plane(channels, scale)}, size, (SIDE_TILE, SIDE_MARGIN))[output]

    # ---- all ----

    def _run(
        self, file: str, inputs: Mapping[str, tuple[Array, int]], made: Mapping[str, _Plane],
        size: tuple[int, ...], tiling: tuple[int, int],
    ) -> dict[str, Array]:  # fmt: skip
        """The network's outputs by name, for inputs (array [channels,height,width], elements per position) by name.

        size: positions down and across. tiling: positions on a side of a tile, and of its margin.
        """
        h, w = size
        whole = {name: np.empty((p.channels, h * p.scale, w * p.scale), np.float32) for name, p in made.items()}
        for tile in _tiles(h, w, *tiling):
            given = {
                name: np.ascontiguousarray(array[tile.computed(scale)])[np.newaxis]
                for name, (array, scale) in inputs.items()
            }
            try:
                results = self._session(file).run(list(made), given)
            except Exception as error:  # onnxruntime has a dozen types of its own, all plain Exceptions
                raise ModelError(f"{self._bundle.path / file} fails: {error}") from error
            for (output, plane), result in zip(made.items(), results, strict=True):
                expected = (1, plane.channels, *(n * plane.scale for n in tile.n_computed()))
                found = (getattr(result, "dtype", type(result)), getattr(result, "shape", ()))  # may be no array
                if found != (np.float32, expected) or not np.isfinite(result).all():
                    raise ModelError(
                        f"{self._bundle.path / file} gives {found[0]} {output} of shape {list(found[1])}; "
                        f"{list(expected)} of finite float32 is allowed"
                    )
                whole[output][tile.kept(plane.scale)] = result[0][tile.kept_of_computed(plane.scale)]
        return whole

    def _session(self, file: str) -> Any:
        if file not in self._sessions:
            import onnxruntime  # here, because it takes longer to import than all the rest

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors only; they come back as exceptions
            # Every network has threads of its own. Those of the last one would wait busily for more work, on the cores
            # that the next one needs: on two cores decoding took 0.28 s with it, 0.16 s without.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            self._sessions[file] = onnxruntime.InferenceSession(
                (self._bundle.path / file).read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[file]


_KEPT: OrderedDict[bytes, Networks] = OrderedDict()
MOST_KEPT = 2  # a flagship's networks take about 100 MB once they have run


def networks_of(bundle: Bundle) -> Networks:
    """The networks of a bundle, kept for the next call: to load them takes longer than to run them on a small picture.

    Bundles of equal hash have equal networks.
    """
    found = _KEPT.pop(bundle.hash, None) or Networks(bundle)
    _KEPT[bundle.hash] = found  # the latest at the end
    while len(_KEPT) > MOST_KEPT:
        _KEPT.popitem(last=False)
    return found


class _Plane(NamedTuple):
    """What a network makes: its channels, and elements on a side of a position."""

    channels: int
    scale: int


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

    def n_computed(self) -> tuple[int, ...]:
        """Positions down and across that are computed."""
        return tuple(span.last - span.first for span in self)

    def kept(self, scale: int) -> tuple[slice, ...]:
        """Of the whole: what the tile fills."""
        return slice(None), *(slice(span.start * scale, span.stop * scale) for span in self)

    def kept_of_computed(self, scale: int) -> tuple[slice, ...]:
        """Of what was computed: what the tile fills the whole with."""
        return slice(None), *(
            slice((span.start - span.first) * scale, (span.stop - span.first) * scale) for span in self
        )


def _tiles(h: int, w: int, tile: int, margin: int) -> Iterator[_Tile]:
    for rows in _spans(h, tile, margin):
        for columns in _spans(w, tile, margin):
            yield _Tile(rows, columns)


def _spans(size: int, tile: int, margin: int) -> list[_Span]:
    if size <= tile + 2 * margin:
        return [_Span(0, size, 0, size)]
    starts = range(0, size, tile)
    ends = [min(start + tile, size) for start in starts]
    return [
        _Span(start, end, max(start - margin, 0), min(end + margin, size))
        for start, end in zip(starts, ends, strict=True)
    ]
