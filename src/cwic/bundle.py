"""A model directory: manifest, hashes, find by id, load. A published bundle is never changed.

    <id>/model.json      the manifest, its keys listed at MANIFEST_KEYS
         encoder.onnx    only needed to encode
         decoder.onnx
         tables.npz      integer arrays for the entropy coder
         gradient.onnx   of some of kind cwic: for an encoder that spends effort on a picture
         README.md       how it was trained, on what, with which results

The bundle's hash is the SHA-256 of the manifest without "training" and "effort", as canonical JSON. The manifest holds
the SHA-256 of every file, and so the hash stands for all of the bundle that has an effect on what a file means.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.container import MODEL_ID
from cwic.errors import ModelError, ModelMismatch, ModelNotFound

DEFAULT_MODEL = "cwic-ssim"
PACKAGE_MODELS = Path(__file__).parent / "models"
FOLDERS_VARIABLE = "CWIC_MODELS"  # of the environment: folders of bundles, separated as in PATH
MANIFEST = "model.json"
MANIFEST_FORMAT = 1
GRADIENT = "gradient.onnx"  # of a bundle whose manifest has "effort"
FILES = {
    "autoencoder": ("encoder.onnx", "decoder.onnx", "tables.npz"),
    "li2018": ("encoder.onnx", "decoder.onnx", "tables.npz"),
    "cwic": ("encoder.onnx", "side.onnx", "index.onnx", "means.onnx", "decoder.onnx", "tables.npz"),
}
STRIDES = {"autoencoder": 8, "li2018": 8, "cwic": 16}
MANIFEST_KEYS: dict[str, type | tuple[type, ...]] = {
    "format": int, "id": str, "kind": str, "stride": int, "channels": int, "levels": int,
    "files": dict, "training": dict,
}  # fmt: skip
# And of the kinds: the rate that the one is made for, the channels of z of the other.
MORE_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "autoencoder": {"target_bpp": (int, float)}, "li2018": {"target_bpp": (int, float)}, "cwic": {"side_channels": int},
}  # fmt: skip
# What a manifest may have besides, and keys that have no part in the hash.
OPTIONAL_KEYS: dict[str, dict[str, type]] = {"cwic": {"effort": dict}}
UNHASHED = ("training", "effort")
EFFORT_KEYS = {"sha256", "lambda", "squared_error", "ms_ssim"}


@dataclass(frozen=True)
class Effort:
    """The loss that a bundle was trained for, and which gradient.onnx is for; planes are in [-1,1].

    bits + lambda (squared_error MSE + ms_ssim (1 - MS-SSIM)) pixels, where lambda goes from `lowest` at quality 0 to
    `highest` at 100, its logarithm in a straight line. The two weights are pairs likewise, and go with quality^4.
    """

    lowest: float
    highest: float
    squared_error: tuple[float, float]
    ms_ssim: tuple[float, float]

    def weights(self, quality: float) -> tuple[float, float]:
        """squared_error and ms_ssim of a picture of this quality, 0..1."""
        return self._at(self.squared_error, quality), self._at(self.ms_ssim, quality)

    @staticmethod
    def _at(ends: tuple[float, float], quality: float) -> float:
        return ends[0] + (ends[1] - ends[0]) * quality**4


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose files have been verified.

    kind: "autoencoder", "li2018" or "cwic". stride: pixels on a side of one position of the code. channels: n, or
    those of y (cwic). levels: L of the importance map, 0 for the autoencoder. target_bpp: 0 for cwic, which has every
    rate. side_channels: of z, 0 but for cwic. hash: 32 bytes. tables: integer arrays by name. training: provenance,
    free form. effort: None without gradient.onnx.
    """

    path: Path
    id: str
    kind: str
    stride: int
    channels: int
    levels: int
    target_bpp: float
    side_channels: int
    hash: bytes
    tables: dict[str, NDArray[Any]]
    training: dict[str, Any]
    effort: Effort | None


def load(model_id: str, models_dir: Path | None = None, hash_prefix: bytes | None = None) -> Bundle:
    """The bundle with this id: the first in `models_dir`, in the folders that CWIC_MODELS names, in the package.

    hash_prefix: the first bytes of the hash it must have, as a file's header gives them; bundles with another are
    passed over. A folder that does not exist holds no bundles. Raises ModelNotFound, which names the folders,
    ModelMismatch if bundles of this id have another hash, and ModelError for a damaged bundle.
    """
    if not MODEL_ID.fullmatch(model_id):  # the id becomes the name of a directory
        raise ModelNotFound(f"{model_id!r} is no model id: 1 to 64 letters, digits, '.', '_' or '-' are allowed")
    mismatch = None
    for folder in _folders(models_dir):
        path = folder / model_id
        if not (path / MANIFEST).is_file():
            continue
        bundle = load_directory(path)
        if bundle.id != model_id:
            raise ModelMismatch(f"{path} holds the model {bundle.id!r}; a bundle's directory is named after its id")
        if hash_prefix is None or bundle.hash.startswith(hash_prefix):
            return bundle
        mismatch = bundle
    if mismatch is not None and hash_prefix is not None:
        raise ModelMismatch(
            f"the file needs the model {model_id!r} with hash {hash_prefix.hex()}..., "
            f"but {mismatch.path} has {mismatch.hash[: len(hash_prefix)].hex()}...; "
            "install the version of cwic that wrote the file, or pass the directory that holds its bundle, "
            f"or name it in {FOLDERS_VARIABLE}"
        )
    raise ModelNotFound(
        f"the model {model_id!r} is not installed (looked in {', '.join(map(str, _folders(models_dir)))}); "
        "`cwic models` lists what is; upgrade cwic, or pass the directory that holds the bundle, "
        f"or name it in {FOLDERS_VARIABLE}"
    )


def available(models_dir: Path | None = None) -> list[Bundle]:
    """All bundles that load() can find, by id; an earlier folder's hides its namesakes in later ones."""
    found: dict[str, Bundle] = {}
    for folder in _folders(models_dir):
        for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
            if manifest.parent.name not in found and MODEL_ID.fullmatch(manifest.parent.name):
                found[manifest.parent.name] = load(manifest.parent.name, folder)
    return [found[model_id] for model_id in sorted(found)]


def load_directory(path: Path) -> Bundle:
    """The bundle in this directory, whatever the directory's name. Raises ModelError or ModelMismatch.

    It takes 15 ms to read 9 MB and hash them, so a bundle is kept until a file has another size or time of change.
    """
    return _load_directory(path, _stamps(path))


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    """(name, bytes, time of the last change) of every file."""
    try:
        found = [(file.name, file.stat()) for file in sorted(path.iterdir())]
    except OSError:
        return ()  # reading will fail too, and say why
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


@lru_cache(maxsize=4)
def _load_directory(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> Bundle:
    manifest = _read_manifest(path)
    contents = {name: _read_verified(path / name, manifest["files"][name]) for name in FILES[manifest["kind"]]}
    return Bundle(
        path=path, id=manifest["id"], kind=manifest["kind"], stride=manifest["stride"],
        channels=manifest["channels"], levels=manifest["levels"], target_bpp=float(manifest.get("target_bpp", 0)),
        side_channels=manifest.get("side_channels", 0),
        hash=manifest_hash(manifest), tables=_read_tables(contents["tables.npz"], path / "tables.npz"),
        training=manifest["training"], effort=_read_effort(path, manifest),
    )  # fmt: skip


def manifest_hash(manifest: Mapping[str, Any]) -> bytes:
    """SHA-256 (32 bytes) of the manifest without "training" and "effort": keys sorted, no spaces, ASCII."""
    named = {key: value for key, value in manifest.items() if key not in UNHASHED}
    return hashlib.sha256(json.dumps(named, sort_keys=True, separators=(",", ":")).encode("ascii")).digest()


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write model.json into the directory `path`. Raises ModelError if load_directory() would refuse it."""
    _check_manifest(manifest, path / MANIFEST)
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _folders(models_dir: Path | None) -> list[Path]:
    """Where bundles are looked for, in this order. Empty names in the variable are passed over."""
    named = [Path(name) for name in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if name]
    return [*([] if models_dir is None else [models_dir]), *named, PACKAGE_MODELS]


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path / MANIFEST} cannot be read: {error}") from error
    _check_manifest(manifest, path / MANIFEST)
    return manifest  # type: ignore[no-any-return]  # just checked


def _check_manifest(manifest: Any, path: Path) -> None:
    """Raise ModelError unless the manifest has exactly the keys, types and ranges the codec relies on."""
    if not isinstance(manifest, Mapping) or "kind" not in manifest:
        found = sorted(manifest) if isinstance(manifest, Mapping) else type(manifest).__name__
        raise ModelError(f"{path} has {found}; a manifest has a kind")
    kind = str(manifest["kind"])
    if kind not in FILES:
        raise ModelError(f"{path}: kind is {kind!r}; allowed are {', '.join(FILES)}")
    keys, optional = MANIFEST_KEYS | MORE_KEYS[kind], OPTIONAL_KEYS.get(kind, {})
    if set(manifest) - set(optional) != set(keys):
        raise ModelError(f"{path} has {sorted(manifest)}; exactly the keys {sorted(keys)} are allowed")
    for key, type_ in (keys | {key: optional[key] for key in optional if key in manifest}).items():
        if not isinstance(manifest[key], type_) or isinstance(manifest[key], bool):
            raise ModelError(f"{path}: {key} is {manifest[key]!r}, which is of the wrong type")
    n, levels = manifest["channels"], manifest["levels"]
    rules = {
        f"format must be {MANIFEST_FORMAT}": manifest["format"] == MANIFEST_FORMAT,
        "id must be 1 to 64 letters, digits, '.', '_' or '-'": bool(MODEL_ID.fullmatch(manifest["id"])),
        f"stride must be {STRIDES[kind]}": manifest["stride"] == STRIDES[kind],
        "channels must be 1 to 1024": 1 <= n <= 1024,
        "levels must be 0 for an autoencoder": kind != "autoencoder" or levels == 0,
        "levels must be 2 to 256 and divide channels": kind != "li2018" or (2 <= levels <= 256 and n % levels == 0),
        "levels must be 16 for cwic": kind != "cwic" or levels == 16,
        "target_bpp must be 0 to 1000": 0 <= manifest.get("target_bpp", 0) <= 1000,
        "side_channels must be 1 to 1024": 1 <= manifest.get("side_channels", 1) <= 1024,
        f"files must give the SHA-256 of {FILES[kind]}": set(manifest["files"]) == set(FILES[kind]),
    }
    if "effort" in manifest:
        found = manifest["effort"]
        rules[f"effort must have exactly {sorted(EFFORT_KEYS)}"] = set(found) == EFFORT_KEYS
        rules["effort's lambda must be two numbers, 0 < lowest < highest; its weights one or two, not below 0"] = (
            _is_effort(found)
        )
    for rule, holds in rules.items():
        if not holds:
            raise ModelError(f"{path}: {rule}")


def _is_effort(found: Mapping[str, Any]) -> bool:
    """Whether the numbers of a manifest's "effort" are what they may be."""
    pairs = [found.get("lambda"), _ends(found, "squared_error"), _ends(found, "ms_ssim")]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            return False
        if not all(type(n) in (int, float) and math.isfinite(n) and n >= 0 for n in pair):
            return False
    return bool(0 < pairs[0][0] < pairs[0][1])


def _ends(found: Mapping[str, Any], weight: str) -> Any:
    """A weight of the loss at quality 0 and at 100, a list; a single number in the manifest is both."""
    value = found.get(weight)
    return value if isinstance(value, list) else [value, value]


def _read_effort(path: Path, manifest: Mapping[str, Any]) -> Effort | None:
    """Verifies gradient.onnx, where the manifest names it."""
    found = manifest.get("effort")
    if found is None:
        return None
    _read_verified(path / GRADIENT, found["sha256"])
    (lowest, highest), squared, similar = found["lambda"], _ends(found, "squared_error"), _ends(found, "ms_ssim")
    return Effort(
        float(lowest), float(highest), (float(squared[0]), float(squared[1])), (float(similar[0]), float(similar[1]))
    )


def _read_verified(path: Path, sha256: Any) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelMismatch(f"{path} is not the file its manifest describes; install the bundle again")
    return content


def _read_tables(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            tables = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise ModelError(f"{path} cannot be read: {error}") from error
    for name, table in tables.items():
        if table.dtype.kind not in "iu":
            raise ModelError(f"{path}: {name} is of {table.dtype}; only integer arrays are allowed")
    return tables
