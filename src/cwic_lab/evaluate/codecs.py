"""The codecs under test, each: picture -> bytes of a real file -> picture, at one or several settings."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic import bundle, flagship
from cwic import codec as runtime
from cwic.errors import TargetUnreachable
from cwic.symbols import QUALITY_MAX

Pixels = NDArray[np.uint8]


class Codec(Protocol):
    """name; settings: from low rate to high; encode and decode at one of them."""

    name: str
    settings: Sequence[float]

    def encode(self, image: Pixels, setting: float) -> bytes: ...

    def decode(self, data: bytes) -> Pixels: ...


EFFORT_MARK = "@"  # cwic-ssim@10 is cwic-ssim at effort 10
# Of bundles that have every rate.
QUALITY_SETTINGS = (0.0, 7.0, 15.0, 23.0, 31.0, 40.0, 49.0, 58.0, 68.0, 78.0, 89.0, 100.0)


@dataclass(frozen=True)
class Cwic:
    """A bundle. settings: qualities 0..100 (kind cwic), or the one target in bits per pixel.

    name: the model's id, with @ and the effort where there is any.
    """

    name: str
    settings: Sequence[float]
    kind: str
    stride: int
    models_dir: Path | None
    effort: int = 0

    @property
    def model(self) -> str:
        """The id."""
        return self.name.partition(EFFORT_MARK)[0]

    def encode(self, image: Pixels, setting: float) -> bytes:
        quality = setting if self.kind == "cwic" else None
        return cwic.encode(image, model=self.model, quality=quality, effort=self.effort, models_dir=self.models_dir)

    def decode(self, data: bytes) -> Pixels:
        return cwic.decode(data, models_dir=self.models_dir)

    def bits_per_block(self, data: bytes) -> NDArray[np.float64] | None:
        """Where a file's bits went, [h,w]: those of each block of stride x stride pixels; None for a file without."""
        if not cwic.inspect(data).has_symbols:
            return None
        return runtime.bits_per_block(data, models_dir=self.models_dir)

    def of_size(self, image: Pixels, n_bytes: int) -> tuple[bytes, float] | None:
        """A file of at most n_bytes and little less, and its quality 0..100; one without symbols, which may be far
        less, counts as 100.

        None for a bundle of one rate, and where no quality gives this picture so many or so few bytes.
        """
        if self.kind != "cwic":
            return None
        try:
            data = cwic.encode(image, model=self.model, size=n_bytes, effort=self.effort, models_dir=self.models_dir)
        except TargetUnreachable:
            return None
        if not cwic.inspect(data).has_symbols:
            return data, QUALITY_SETTINGS[-1]
        found = runtime.decode_symbols(data, models_dir=self.models_dir)
        assert isinstance(found, flagship.Symbols)
        return data, found.quality * 100 / QUALITY_MAX


@dataclass(frozen=True)
class Jpeg:
    """Pillow's JPEG (libjpeg-turbo), 4:2:0, optimised Huffman tables. setting: quality 1..95."""

    name: str = "jpeg"
    settings: Sequence[float] = (2, 4, 6, 8, 11, 14, 18, 22, 26, 31, 36, 42, 48, 56, 64, 72, 80, 86, 90)

    def encode(self, image: Pixels, setting: float) -> bytes:
        return _saved(image, "JPEG", quality=int(setting), optimize=True, subsampling="4:2:0")

    def decode(self, data: bytes) -> Pixels:
        return _opened(data)


@dataclass(frozen=True)
class Jpeg2000:
    """Pillow's JPEG 2000 (OpenJPEG), irreversible wavelet, one layer. setting: aimed-at bits per pixel."""

    name: str = "jpeg2000"
    settings: Sequence[float] = (0.08, 0.12, 0.17, 0.23, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0)

    def encode(self, image: Pixels, setting: float) -> bytes:
        colours = image.shape[2] if image.ndim == 3 else 1
        return _saved(
            image, "JPEG2000", quality_mode="rates", quality_layers=[8 * colours / setting], irreversible=True,
            mct=int(colours == 3),  # RGB to YCbCr; Pillow leaves it out by default, which costs 4 dB
        )  # fmt: skip

    def decode(self, data: bytes) -> Pixels:
        return _opened(data)


@dataclass(frozen=True)
class PillowCodec:
    """A format that Pillow or a plugin of it writes. setting: its quality, an integer of 1..100."""

    name: str
    settings: Sequence[float]
    format: str
    options: Mapping[str, object]
    plugin: str = ""

    def encode(self, image: Pixels, setting: float) -> bytes:
        self._load()
        return _saved(image, self.format, quality=int(setting), **self.options)

    def decode(self, data: bytes) -> Pixels:
        self._load()
        return _opened(data)

    def _load(self) -> None:
        """Make Pillow know the format. Raises ValueError naming what to install."""
        if not self.plugin:
            return
        try:
            plugin = importlib.import_module(self.plugin)
        except ImportError as error:
            package = {"pillow_jxl": "pillow-jxl-plugin", "pillow_heif": "pillow-heif"}[self.plugin]
            raise ValueError(f"codec {self.name!r} needs {package}: pip install {package}") from error
        if self.plugin == "pillow_heif":
            plugin.register_heif_opener()


# 4:2:0 is all that lossy WebP has. AVIF by libaom at 4:4:4, as learned codecs work on RGB; HEIC by x265 likewise.
PILLOW_CODECS = (
    PillowCodec("webp", (1, 10, 20, 30, 40, 50, 60, 70, 80, 88, 94, 98), "WEBP", {"method": 6}),
    PillowCodec(
        "avif", (8, 15, 22, 30, 38, 46, 54, 62, 70, 78, 85, 92), "AVIF",
        {"subsampling": "4:4:4", "speed": 4, "codec": "aom"},
    ),
    PillowCodec("jxl", (2, 6, 12, 20, 30, 40, 50, 60, 70, 80, 87, 93), "JXL", {"effort": 7}, "pillow_jxl"),
    PillowCodec("heic", (5, 10, 16, 22, 28, 34, 40, 47, 55, 65, 75, 87), "HEIF", {"chroma": 444}, "pillow_heif"),
)  # fmt: skip
CLASSICAL = ("jpeg", "jpeg2000", *(codec.name for codec in PILLOW_CODECS))


def find_codecs(names: Sequence[str], models_dir: Path | None = None) -> list[Codec]:
    """The codecs that names or patterns (`li2018-*`) stand for; those of kind cwic also at an effort (`cwic-ssim@10`).

    Raises ValueError for one that matches nothing.
    """
    known: dict[str, Codec] = {
        found.id: Cwic(
            found.id, QUALITY_SETTINGS if found.kind == "cwic" else (found.target_bpp,), found.kind, found.stride,
            models_dir,
        )
        for found in bundle.available(models_dir)
    }  # fmt: skip
    known |= {"jpeg": Jpeg(), "jpeg2000": Jpeg2000()} | {codec.name: codec for codec in PILLOW_CODECS}
    chosen: dict[str, Codec] = {}
    for name in names:
        pattern, mark, effort = name.partition(EFFORT_MARK)
        matching = [known[match] for match in fnmatch.filter(known, pattern)]
        if mark:  # of those that can have one
            matching = [
                dataclasses.replace(found, name=f"{found.name}{mark}{effort}", effort=int(effort))
                for found in matching
                if isinstance(found, Cwic) and found.kind == "cwic" and effort.isdecimal()
            ]
        if not matching:
            raise ValueError(f"codec {name!r}; available: {', '.join(known)}, and with an effort those of kind cwic")
        chosen |= {found.name: found for found in matching}
    return list(chosen.values())


def match_bytes(codec: Codec, image: Pixels, n_bytes: int) -> tuple[bytes, float] | None:
    """The codec's largest file of at most n_bytes, and its setting.

    A classical codec gives its smallest file if none fits, a bundle None (`Cwic.of_size`). Found by halving, as files
    grow with the setting. JPEG 2000 stops within 0.1 % of n_bytes or after 16 files.
    """
    if isinstance(codec, Cwic):
        return codec.of_size(image, n_bytes)
    if codec.name != "jpeg2000":
        low, high = 1, 96 if codec.name == "jpeg" else 101
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if len(codec.encode(image, middle)) <= n_bytes else (low, middle)
        return codec.encode(image, low), low
    rate = 8 * n_bytes / (image.shape[0] * image.shape[1])
    fits, over = 0.0, 1.1 * rate  # OpenJPEG lands a little beside the rate asked for
    best = None
    for _ in range(16):
        data = codec.encode(image, rate)
        if len(data) <= n_bytes:
            best, fits = (data, rate), rate
            if len(data) >= 0.999 * n_bytes:
                break
        else:
            over = rate
        rate = (fits + over) / 2
    return best or (data, over)


def _saved(image: Pixels, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _opened(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)
