"""The codecs that peers.py compares, each: picture -> bytes of a real file -> picture, and the same from file to file.

Nothing heavy is imported before it is needed: what a codec imports is part of its cold start, and CompressAI lives in
another environment than the rest. Pictures are uint8 [H,W,3].
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


class Codec(Protocol):
    """One way of coding. A quality is an integer in `qualities`, or None for a codec that has one rate only."""

    def qualities(self) -> tuple[int, int] | None: ...

    def versions(self) -> dict[str, str]: ...

    def encode(self, image: Pixels, quality: int | None) -> bytes: ...

    def decode(self, data: bytes) -> Pixels: ...

    def encode_file(self, source: Path, target: Path, quality: int | None) -> None: ...

    def decode_file(self, source: Path, target: Path) -> None: ...


@dataclass
class Cwic:
    """A bundle: cwic.encode and cwic.decode; from file to file the commands `cwic encode` and `cwic decode`."""

    model: str
    models_dir: str | None
    threads: int

    def __post_init__(self) -> None:
        from cwic import areas

        # The codec takes every core that the process may use, and asks no environment variable.
        areas.cores = lambda: self.threads

    def qualities(self) -> tuple[int, int] | None:
        from cwic import bundle

        return (0, 100) if bundle.load(self.model, self._folder()).kind == "cwic" else None

    def versions(self) -> dict[str, str]:
        import cwic

        return {"cwic": cwic.__version__} | _versions("numpy", "onnxruntime", "constriction", "pillow")

    def encode(self, image: Pixels, quality: int | None) -> bytes:
        from cwic import codec

        return codec.encode(image, model=self.model, quality=quality, models_dir=self._folder())

    def decode(self, data: bytes) -> Pixels:
        from cwic import codec

        return codec.decode(data, models_dir=self._folder())

    def encode_file(self, source: Path, target: Path, quality: int | None) -> None:
        asked = [] if quality is None else ["--quality", str(quality)]
        self._command("encode", str(source), "-o", str(target), "--force", "--model", self.model, *asked)

    def decode_file(self, source: Path, target: Path) -> None:
        self._command("decode", str(source), "-o", str(target), "--force")

    def _command(self, *words: str) -> None:
        from cwic import cli

        folder = [] if self.models_dir is None else ["--models", self.models_dir]
        if cli.main([*words, *folder]) != 0:
            raise RuntimeError(f"cwic {words[0]} fails")

    def _folder(self) -> Path | None:
        return None if self.models_dir is None else Path(self.models_dir)


@dataclass
class PillowCodec:
    """A format that Pillow writes, with these options of its save()."""

    format: str
    options: dict[str, Any]
    threads: int

    def __post_init__(self) -> None:
        if self.format == "AVIF":
            from PIL import AvifImagePlugin

            AvifImagePlugin.DEFAULT_MAX_THREADS = self.threads  # of decoder and encoder; open() has no argument for it

    def qualities(self) -> tuple[int, int] | None:
        return 1, 95 if self.format == "JPEG" else 100

    def versions(self) -> dict[str, str]:
        from PIL import AvifImagePlugin, features

        if self.format == "AVIF":
            coders = {name: str(AvifImagePlugin.get_codec_version(name)) for name in ("aom", "dav1d")}
            return _versions("pillow") | {"libavif": str(features.version("avif"))} | coders
        library = {"JPEG": "libjpeg_turbo", "WEBP": "webp"}[self.format]
        return _versions("pillow") | {library: str(features.version(library))}

    def encode(self, image: Pixels, quality: int | None) -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, self.format, quality=quality, **self.options)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Pixels:
        import numpy as np
        from PIL import Image

        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture)

    def encode_file(self, source: Path, target: Path, quality: int | None) -> None:
        from PIL import Image

        with Image.open(source) as picture:
            picture.save(target, self.format, quality=quality, **self.options)

    def decode_file(self, source: Path, target: Path) -> None:
        from PIL import Image

        with Image.open(source) as picture:
            picture.save(target)


@dataclass
class CompressAI:
    """A model of CompressAI's zoo with random weights, as prepare() leaves them in the file `weights`.

    level: CompressAI's quality 1..8, which chooses the width. The file is ours: two sizes, two lengths, two strings.
    """

    name: str
    level: int
    weights: str
    threads: int

    HEAD = struct.Struct("<6I")  # picture's height and width, those of z, bytes of y and of z
    MULTIPLE = 64  # of the sides that the networks take
    SPREAD = 0.35  # standard deviation of y, in steps of the quantizer

    def __post_init__(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        torch.set_grad_enabled(False)

    def qualities(self) -> tuple[int, int] | None:
        return None

    def versions(self) -> dict[str, str]:
        return _versions("compressai", "torch", "numpy", "pillow")

    def prepare(self, images: list[Pixels]) -> dict[str, int]:
        """Write random weights that give a plausible rate on these pictures; returns N and M.

        As drawn, every y would round to 0. The last layer of the analysis is scaled and shifted, so that each channel
        of y has mean 0 and standard deviation SPREAD, and the hyper-synthesis says (nearly) so by its last bias. The
        first layer's kernels sum to 0: like a trained network, this one has little to say of a bright flat sky.
        """
        import torch
        from compressai.zoo import image_models

        torch.manual_seed(1)
        net = image_models[self.name](quality=self.level, pretrained=False).eval()
        net.g_a[0].weight.sub_(net.g_a[0].weight.mean(dim=(1, 2, 3), keepdim=True))
        moments = [torch.stack(torch.var_mean(net.g_a(self._planes(image)), dim=(0, 2, 3))) for image in images]
        variance, mean = torch.stack(moments).mean(dim=0)
        scale, last = self.SPREAD / variance.sqrt(), net.g_a[-1]
        last.weight.mul_(scale[:, None, None, None])
        last.bias.copy_((last.bias - mean) * scale)
        final = [layer for layer in net.h_s if hasattr(layer, "bias")][-1]
        final.bias.zero_()
        final.bias[: net.M] = self.SPREAD  # the rest, with mbt2018-mean, are the means
        net.update(force=True)
        torch.save(net.state_dict(), self.weights)
        return {"N": net.N, "M": net.M}

    def encode(self, image: Pixels, quality: int | None) -> bytes:
        made = self._net.compress(self._planes(image))
        (y,), (z,) = made["strings"]
        return self.HEAD.pack(*image.shape[:2], *made["shape"], len(y), len(z)) + y + z

    def decode(self, data: bytes) -> Pixels:
        height, width, rows, columns, n_y, n_z = self.HEAD.unpack_from(data)
        y = data[self.HEAD.size : self.HEAD.size + n_y]
        z = data[self.HEAD.size + n_y : self.HEAD.size + n_y + n_z]
        planes = self._net.decompress([[y], [z]], (rows, columns))["x_hat"][0, :, :height, :width]
        return (255 * planes).round().byte().permute(1, 2, 0).contiguous().numpy()

    def encode_file(self, source: Path, target: Path, quality: int | None) -> None:
        target.write_bytes(self.encode(read_picture(source), quality))

    def decode_file(self, source: Path, target: Path) -> None:
        from PIL import Image

        Image.fromarray(self.decode(source.read_bytes())).save(target)

    @cached_property
    def _net(self) -> Any:
        import torch
        from compressai.models import MeanScaleHyperprior, ScaleHyperprior

        kind = {"bmshj2018-hyperprior": ScaleHyperprior, "mbt2018-mean": MeanScaleHyperprior}[self.name]
        return kind.from_state_dict(torch.load(self.weights)).eval()

    def _planes(self, image: Pixels) -> Any:
        import torch

        planes = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        bottom, right = (-side % self.MULTIPLE for side in image.shape[:2])
        return torch.nn.functional.pad(planes, (0, right, 0, bottom), mode="replicate")


KINDS: dict[str, Any] = {"cwic": Cwic, "pillow": PillowCodec, "compressai": CompressAI}


def from_json(text: str) -> Codec:
    """The codec that a JSON object describes: `kind`, and the fields of its class."""
    described = json.loads(text)
    made: Codec = KINDS[described.pop("kind")](**described)
    return made


def read_picture(path: Path) -> Pixels:
    """uint8 [H,W,3]. Raises ValueError for a picture that is not RGB of 8 bits: not every peer takes others."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode != "RGB":
            raise ValueError(f"{path} is of mode {picture.mode}; RGB is allowed")
        return np.array(picture)


def _versions(*packages: str) -> dict[str, str]:
    import importlib.metadata

    return {package: importlib.metadata.version(package) for package in packages}
