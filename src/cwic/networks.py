"""The only user of onnxruntime: the networks of a bundle, on the CPU.

The paper's networks compute large arrays in pieces, so that memory does not grow with the picture: each piece is
computed with a margin on every side that is wider than they look, and so the pieces join without a seam; only the float
rounding differs from computing all at once. `flagship` cuts by itself, as its networks feed each other.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cwic import areas
from cwic.areas import Area, pieces
from cwic.bundle import GRADIENT, Bundle
from cwic.errors import ModelError

# In positions of the code (autoencoder, li2018): 1024 pixels at stride 8. The networks look at 9 positions.
PIECE, MARGIN = 128, 12
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
        """threads: for one network at a time; by default as many as there are cores. Any number may call at once."""
        self._bundle = bundle
        self._threads = threads or areas.cores()
        self._sessions: dict[str, Any] = {}
        self._loading = threading.Lock()

    # ---- the paper's ----

    def analysis(self, planes: Array) -> Latents:
        """Latents of planes float32 [3,H',W'] in [-1,1], both multiples of the stride. Raises ModelError."""
        stride = self._bundle.stride
        made = {"latents": _Plane(self._bundle.channels, 1)}
        if self._bundle.kind == "li2018":
            made["importance"] = _Plane(1, 1)
        size = planes.shape[1] // stride, planes.shape[2] // stride
        found = self._run("encoder.onnx", {"planes": (planes, stride)}, made, size, (PIECE, MARGIN))
        return Latents(found["latents"], found["importance"][0] if "importance" in found else None)

    def synthesis(self, latents: Array) -> Array:
        """Planes float32 [3,H',W'], unclipped, of latents float32 [n,h,w]. Raises ModelError."""
        made = {"planes": _Plane(3, self._bundle.stride)}
        size = latents.shape[1], latents.shape[2]
        found = self._run("decoder.onnx", {"latents": (latents, 1)}, made, size, (PIECE, MARGIN))
        return found["planes"]

    # ---- the flagship's: y [C,h,w] at 1/16 of the resolution, z [S,h/4,w/4], quality [1,h,w] in 0..1 ----

    def latents(self, planes: Array) -> Latents:
        """y, and the bundle's own map in levels before rounding. Raises ModelError.

        planes: float32 [3,H',W'] in [-1,1], sides multiples of 64.
        """
        size = planes.shape[1] // 64, planes.shape[2] // 64
        made = {"latents": _Plane(self._bundle.channels, SIDE_SCALE), "importance": _Plane(1, SIDE_SCALE)}
        found = self._run("encoder.onnx", {"planes": (planes, 64)}, made, size)
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
        (found,) = self._means(("found",), latents, np.zeros_like(latents), side, quality, dead_zone)
        return found

    def decoded(self, residual: Array, side: Array, quality: Array) -> Array:
        """y_hat of the symbols at the local quality. Raises ModelError."""
        never = np.full_like(residual, NEVER)
        (decoded,) = self._means(("decoded",), np.zeros_like(residual), residual, side, quality, never)
        return decoded

    def coded(self, latents: Array, side: Array, quality: Array, dead_zone: Array) -> tuple[Array, Array]:
        """y_hat [C,h,w] of what y is rounded to with this dead zone, and those residuals, as of `rounded`."""
        decoded, found = self._means(
            ("decoded", "found"), latents, np.zeros_like(latents), side, quality, dead_zone
        )  # fmt: skip
        return decoded, found

    def newton_step(
        self, latents: Array, decoded: Array, found: Array, side: Array, quality: Array, deviation: Array, error: Array
    ) -> Array:
        """What to take off y for a whole step towards fewer bits and less distortion, [C,h,w]. Raises ModelError.

        decoded, found: of `coded`. deviation: of the residuals [C,h,w]. error: the distortion's derivative by the
        decoded planes, in bits, float32 [3,H',W'].
        """
        given = {"latents": latents, "decoded": decoded, "found": found, "deviation": deviation, "quality": quality}
        inputs = {name: (array, SIDE_SCALE) for name, array in given.items()}
        inputs |= {"side": (side, 1), "error": (error, 64)}
        return self._flagship(GRADIENT, inputs, "step", self._bundle.channels, SIDE_SCALE)

    def _means(
        self, outputs: tuple[str, ...], latents: Array, residual: Array, side: Array, quality: Array, zone: Array
    ) -> list[Array]:
        inputs = {
            "latents": (latents, SIDE_SCALE), "residual": (residual, SIDE_SCALE), "side": (side, 1),
            "quality": (quality, SIDE_SCALE), "dead_zone": (zone, SIDE_SCALE),
        }  # fmt: skip
        made = dict.fromkeys(outputs, _Plane(self._bundle.channels, SIDE_SCALE))
        found = self._run("means.onnx", inputs, made, (side.shape[1], side.shape[2]))
        return [found[name] for name in outputs]

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
        return self._run(file, inputs, {output: _Plane(channels, scale)}, size)[output]

    def forget(self, file: str) -> None:
        """Free the memory of a network that is not needed for a while: what it took for its largest piece."""
        with self._loading:
            self._sessions.pop(file, None)

    # ---- all ----

    def _run(
        self, file: str, inputs: Mapping[str, tuple[Array, int]], made: Mapping[str, _Plane],
        size: tuple[int, int], cutting: tuple[int, int] | None = None,
    ) -> dict[str, Array]:  # fmt: skip
        """The network's outputs by name, for inputs (array [channels,height,width], elements per position) by name.

        size: positions down and across. cutting: positions on a side of a piece, and of its margin.
        """
        bounds = Area(0, 0, *size)
        side, margin = cutting or (max(size), 0)
        whole = {
            name: np.empty((plane.channels, size[0] * plane.scale, size[1] * plane.scale), np.float32)
            for name, plane in made.items()
        }
        for piece in pieces(bounds, side, margin):
            window = piece.widened(margin).common(bounds)
            given = {
                name: np.ascontiguousarray(window.of(array, scale))[np.newaxis]
                for name, (array, scale) in inputs.items()
            }
            try:
                results = self._session(file).run(list(made), given)
            except Exception as error:  # onnxruntime has a dozen types of its own, all plain Exceptions
                raise ModelError(f"{self._bundle.path / file} fails: {error}") from error
            for (output, plane), result in zip(made.items(), results, strict=True):
                expected = (1, plane.channels, window.height * plane.scale, window.width * plane.scale)
                found = (getattr(result, "dtype", type(result)), getattr(result, "shape", ()))  # may be no array
                if found != (np.float32, expected) or not np.isfinite(result).all():
                    raise ModelError(
                        f"{self._bundle.path / file} gives {found[0]} {output} of shape {list(found[1])}; "
                        f"{list(expected)} of finite float32 is allowed"
                    )
                piece.of(whole[output], plane.scale)[...] = piece.within(window).of(result[0], plane.scale)
        return whole

    def _session(self, file: str) -> Any:
        with self._loading:
            if file not in self._sessions:
                self._sessions[file] = self._loaded(file)
            return self._sessions[file]

    def _loaded(self, file: str) -> Any:
        import onnxruntime  # here, because it takes longer to import than all the rest

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only; they come back as exceptions
        # Every network has threads of its own. Those of the last one would wait busily for more work, on the cores
        # that the next one needs: on two cores decoding took 0.28 s with it, 0.16 s without.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = self._threads
        path = self._bundle.path / file
        # Where the gradient's weights are in the other graphs is told relative to its own path.
        content = str(path) if file == GRADIENT else path.read_bytes()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


_KEPT: OrderedDict[tuple[bytes, int | None], Networks] = OrderedDict()
MOST_KEPT = 2  # a flagship's networks take about 100 MB once they have run


def networks_of(bundle: Bundle, threads: int | None = None) -> Networks:
    """The networks of a bundle, kept for the next call: to load them takes longer than to run them on a small picture.

    Bundles of equal hash have equal networks. threads: as of `Networks`.
    """
    key = bundle.hash, threads
    found = _KEPT.pop(key, None) or Networks(bundle, threads)
    _KEPT[key] = found  # the latest at the end
    while len(_KEPT) > MOST_KEPT:
        _KEPT.popitem(last=False)
    return found


class _Plane(NamedTuple):
    """What a network makes: its channels, and elements on a side of a position."""

    channels: int
    scale: int
