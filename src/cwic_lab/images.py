"""Where training photographs come from: find them, read them, split them, and keep count of the broken ones.

A photograph is an image file in a folder (at any depth) or a member of a zip or tar shard, read in place and
never extracted. Known layouts: DIV2K (only `DIV2K_train_HR` is used where it is present) and Flickr30k
(`flickr30k_images`; its captions file is no image and is ignored like any other).
"""

from __future__ import annotations

import glob
import hashlib
import io
import logging
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB, rows from the top

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
BROKEN_FRACTION = 0.01

log = logging.getLogger(__name__)


class BrokenImage(ValueError):
    """One image file that cannot be read or decoded; the message is the reason."""


class TooManyBroken(RuntimeError):
    """More than 1 % of the photographs seen are broken: a damaged set, or not the one the recipe means."""


@dataclass(frozen=True)
class ImageRef:
    """Where one photograph lies.

    path: the image file, or the shard that holds it. member: its name inside the shard, or None.
    offset, n_bytes: its place in a tar shard (a zip finds its own members).
    """

    path: str
    member: str | None = None
    offset: int = 0
    n_bytes: int = 0

    @property
    def name(self) -> str:
        """The file's own name, without folder or shard, such as `0001.png`."""
        return PurePosixPath(self.member).name if self.member is not None else Path(self.path).name

    def __str__(self) -> str:
        return self.path if self.member is None else f"{self.path}:{self.member}"


# ---- find ------------------------------------------------------------------------------------------------


def find_images(paths: Sequence[str], root: str | Path = ".") -> list[ImageRef]:
    """All photographs under the paths, each once, ordered by the paths given and the names below them.

    paths: image files, folders, zip or tar shards, or patterns such as `train/*.zip`. A relative path is
    looked for in the folder `CWIC_DATA` (an environment variable) first, then in `root`, the recipe's folder.
    Raises FileNotFoundError for a path that is not there or holds no image, ValueError for an unreadable
    shard.
    """
    refs: dict[ImageRef, None] = {}  # a dict keeps the order and drops what two paths both reach
    for text in paths:
        found = [ref for path in _resolve(text, Path(root)) for ref in _images_at(path)]
        if not found:
            raise FileNotFoundError(f"{text}: no images")
        refs.update(dict.fromkeys(found))
    return list(refs)


def _resolve(text: str, root: Path) -> list[Path]:
    folders = [Path(folder) for folder in (os.environ.get("CWIC_DATA"), root) if folder]
    for folder in folders:
        path = folder / Path(text).expanduser()  # an absolute text wins over the folder
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path)))]
        if matches:
            return matches
    raise FileNotFoundError(f"{text}: not found (looked in {', '.join(str(folder) for folder in folders)})")


def _images_at(path: Path) -> Iterator[ImageRef]:
    if path.is_dir():
        yield from _images_in_folder(path)
    elif path.name.lower().endswith(COMPRESSED_TARS):
        raise ValueError(f"{path}: a compressed tar cannot be read at random; repack it as .tar or .zip")
    elif path.suffix.lower() == ".zip":
        yield from _images_in_zip(path)
    elif path.suffix.lower() == ".tar":
        yield from _images_in_tar(path)
    elif _is_image(path.name):
        yield ImageRef(str(path))


def _images_in_folder(folder: Path) -> Iterator[ImageRef]:
    for div2k in (folder / "DIV2K_train_HR", folder / "DIV2K_train_HR.zip"):
        if div2k.exists():  # the valid and low-resolution parts beside it are not for training
            yield from _images_at(div2k)
            return
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if not _is_hidden(path.name) and not _is_unpacked(path):
            yield from _images_at(path)


def _is_unpacked(path: Path) -> bool:
    """Whether this is a shard with its own folder beside it (as after `download`): count those once."""
    return path.suffix.lower() in (".zip", ".tar") and path.with_suffix("").is_dir()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(name.removeprefix("./"))


def _images_in_zip(path: Path) -> list[ImageRef]:
    try:
        with zipfile.ZipFile(path) as shard:
            names = sorted(name for name in shard.namelist() if _is_image(name))
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path}: not a readable zip shard: {error}") from error
    return [ImageRef(str(path), name) for name in names]


def _images_in_tar(path: Path) -> list[ImageRef]:
    try:
        with tarfile.open(path, "r:") as shard:
            members = [member for member in shard if member.isreg() and _is_image(member.name)]
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{path}: not a readable tar shard: {error}") from error
    refs = [ImageRef(str(path), member.name, member.offset_data, member.size) for member in members]
    return sorted(refs, key=lambda ref: ref.member or "")


# ---- read ------------------------------------------------------------------------------------------------


class Reader:
    """Reads photographs; keeps zip shards open, a handle a process (a forked one would share its offset)."""

    def __init__(self) -> None:
        self._shards: dict[str, zipfile.ZipFile] = {}
        self._pid = os.getpid()

    def read(self, ref: ImageRef) -> bytes:
        """The image file's bytes, as stored. Raises BrokenImage."""
        try:
            if ref.member is None:
                return Path(ref.path).read_bytes()
            if ref.path.lower().endswith(".tar"):
                with open(ref.path, "rb") as shard:
                    shard.seek(ref.offset)
                    return shard.read(ref.n_bytes)
            return self._shard(ref.path).read(ref.member)
        except Exception as error:  # zipfile adds BadZipFile, zlib.error, KeyError and more to OSError
            raise BrokenImage(f"cannot read: {error!r}") from error

    def pixels(self, ref: ImageRef) -> Pixels:
        """The photograph, uint8 [H,W,3] RGB. Raises BrokenImage."""
        return decode_pixels(self.read(ref))

    def _shard(self, path: str) -> zipfile.ZipFile:
        if self._pid != os.getpid():
            self._shards, self._pid = {}, os.getpid()
        if path not in self._shards:
            self._shards[path] = zipfile.ZipFile(path)
        return self._shards[path]

    def __getstate__(self) -> dict[str, object]:
        return {"_shards": {}, "_pid": -1}  # a spawned worker opens its own


def decode_pixels(data: bytes) -> Pixels:
    """An image file's bytes -> uint8 [H,W,3] RGB (grey is repeated, alpha dropped). Raises BrokenImage."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            if mode[0] not in "IF":
                return np.array(image if mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # Pillow raises nearly anything on damaged bytes
        raise BrokenImage(f"cannot decode: {error!r}") from error
    raise BrokenImage(f"more than 8 bits a sample (Pillow's mode {mode})")


class BrokenImages:
    """Counts photographs seen and broken; reports each broken one once, and fails when more than 1 % are.

    Until 1000 photographs (or all, if there are fewer) have been seen, 1 % is taken of that number: the first
    photograph being broken does not end a run, ten in the first thousand do no harm, the eleventh does.
    """

    def __init__(self, n_images: int) -> None:
        self._n_images = n_images
        self.seen: set[str] = set()
        self.reasons: dict[str, str] = {}

    def add_seen(self, name: str) -> None:
        self.seen.add(name)

    def add_broken(self, name: str, reason: str) -> None:
        """Raises TooManyBroken."""
        self.seen.add(name)
        if name in self.reasons:
            return
        self.reasons[name] = reason
        log.warning("skipped broken image %s: %s (%d broken so far)", name, reason, len(self.reasons))
        if len(self.reasons) > BROKEN_FRACTION * max(len(self.seen), min(self._n_images, 1000)):
            count = f"{len(self.reasons)} broken images among {len(self.seen)} seen of {self._n_images}"
            raise TooManyBroken(f"{count}, more than 1 %; the last: {name}: {reason}")


# ---- split -----------------------------------------------------------------------------------------------


def split(refs: Iterable[ImageRef], fraction: float = 1 / 32) -> tuple[list[ImageRef], list[ImageRef]]:
    """(training, validation) photographs: validation where SHA-256(name, 0, bytes) / 2^256 < fraction.

    Each photograph's side depends on its own name and bytes alone, so it stays the same in any folder, shard
    or larger set, and a smaller fraction gives a subset. Training keeps the order given; validation is in the
    order of the hash, so its first k are a fair sample. A file that cannot be read stays in training, where
    it is reported.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"validation fraction {fraction}, expected 0..1")
    reader = Reader()
    train: list[ImageRef] = []
    valid: list[tuple[float, ImageRef]] = []
    for ref in refs:
        place = _hash_place(ref, reader)
        if place < fraction:
            valid.append((place, ref))
        else:
            train.append(ref)
    return train, [ref for _, ref in sorted(valid, key=lambda pair: pair[0])]


def _hash_place(ref: ImageRef, reader: Reader) -> float:
    """The hash as a number in 0..1; 2 for a file that cannot be read."""
    try:
        data = reader.read(ref)
    except BrokenImage:
        return 2.0
    digest = hashlib.sha256(ref.name.encode() + b"\0" + data).digest()
    return float(int.from_bytes(digest, "big") / 2**256)


def validation_images(refs: Sequence[ImageRef], limit: int | None = None, crop: int | None = None) -> list[Pixels]:
    """The first `limit` (None: all) of the validation photographs that `split` found: uint8 [H,W,3].

    crop: keep only the central crop x crop pixels (a smaller side is kept whole); None for whole pictures.
    Raises TooManyBroken.
    """
    reader, broken, pictures = Reader(), BrokenImages(len(refs)), list[Pixels]()
    for ref in refs:
        if limit is not None and len(pictures) >= limit:
            break
        try:
            pictures.append(_centre(reader.pixels(ref), crop))
            broken.add_seen(str(ref))
        except BrokenImage as error:
            broken.add_broken(str(ref), str(error))
    return pictures


def _centre(pixels: Pixels, crop: int | None) -> Pixels:
    if crop is None:
        return pixels
    top, left = (max(0, (size - crop) // 2) for size in pixels.shape[:2])
    return pixels[top : top + crop, left : left + crop].copy()
