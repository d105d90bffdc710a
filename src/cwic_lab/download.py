"""Fetch DIV2K (800 + 100 photographs of 2 megapixels): resumed where it broke off, checked, then unpacked.

    python -m cwic_lab.download FOLDER [--subset train valid]

A download grows in `NAME.part`; it gets its name only once its checksum is right, so a file under the final
name is always whole. The photographs are for research use: https://data.vision.ee.ethz.ch/cvl/DIV2K/.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import logging
import os
import shutil
import stat
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
DIV2K_CHECKSUMS = {
    "DIV2K_train_HR.zip": "md5:bdc2d9338d4e574fe81bf7d158758658",
    "DIV2K_valid_HR.zip": "md5:9fcdda83005c5e5997799b69f955ff88",
}
BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60

log = logging.getLogger(__name__)


class DownloadError(RuntimeError):
    """The file could not be fetched; what has arrived stays in `NAME.part` for the next call."""


class ChecksumError(DownloadError):
    """The bytes are not those that were published."""


class UnsafeArchive(ValueError):
    """A zip member that would be written outside the folder, or that is no plain file."""


def download_div2k(
    folder: Path,
    subsets: Sequence[str] = ("train", "valid"),
    base_url: str = DIV2K_URL,
    checksums: Mapping[str, str] = DIV2K_CHECKSUMS,
) -> None:
    """Leaves `DIV2K_<subset>_HR/0001.png ...` (and the zips they came in) in the folder.

    Raises DownloadError.
    """
    for subset in subsets:
        name = f"DIV2K_{subset}_HR.zip"
        unpack_zip(download(f"{base_url}/{name}", folder / name, checksums[name]), folder)


def download(url: str, path: Path, checksum: str, attempts: int = 5) -> Path:
    """Leaves the file of `url`, checked, at `path`, and returns that; asks no server if it is there already.

    checksum: `md5:` or `sha256:` and the hexadecimal digest. attempts: how often a broken connection is
    tried.
    Raises ChecksumError, and DownloadError once the attempts are used up or the server refuses.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url}: expected an http or https address")
    if path.exists():
        if not has_checksum(path, checksum):
            raise ChecksumError(f"{path}: is there, but not with {checksum}; remove it to fetch it again")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(attempts):
        try:
            _fetch(url, part)
            break
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:  # refused, timed out, broken off
            if attempt + 1 == attempts:
                raise DownloadError(f"{url}: {error}; run again to go on from {part}") from error
            log.warning("%s: %s; trying again", url, error)
            time.sleep(min(attempt, 5))
    if not has_checksum(part, checksum):
        part.unlink()
        raise ChecksumError(f"{url}: what arrived does not have {checksum}; removed")
    part.replace(path)
    return path


def _fetch(url: str, part: Path) -> None:
    """Adds to the part what it lacks, or starts over if the server cannot continue.

    Raises OSError, HTTPException.
    """
    n_have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={n_have}-"} if n_have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not n_have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{n_have}":
            return  # it was whole already
        part.unlink()
        raise ConnectionError("the part was longer than the file; starting over") from error
    with response:
        continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if continues and not response.headers.get("Content-Range", "").startswith(f"bytes {n_have}-"):
            got = response.headers.get("Content-Range")
            raise http.client.HTTPException(f"asked for bytes from {n_have}, got {got}")
        if not continues:
            n_have = 0
        length = response.headers.get("Content-Length")
        n_total = n_have + int(length) if length is not None else None
        _append(response, part, n_have, n_total)


def _append(response: http.client.HTTPResponse, part: Path, n_have: int, n_total: int | None) -> None:
    with (
        open(part, "ab" if n_have else "wb") as file,
        tqdm(total=n_total, initial=n_have, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
    ):
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            n_have += len(block)
            bar.update(len(block))
    if n_total is not None and n_have != n_total:  # a dropped connection looks like the end of the file
        raise ConnectionError(f"broken off after {n_have} of {n_total} bytes")


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether the file has this digest, `md5:...` or `sha256:...`. Raises ValueError for another kind."""
    kind, _, expected = checksum.partition(":")
    if kind not in ("md5", "sha256"):
        raise ValueError(f"checksum {checksum}: expected md5: or sha256:")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == expected.lower()


def unpack_zip(archive: Path, folder: Path) -> None:
    """Writes the zip's files below the folder; files already there with the right size are left as they are.

    All names are checked before anything is written. Raises UnsafeArchive for an absolute name, one that
    leads out of the folder, or a link.
    """
    with zipfile.ZipFile(archive) as source:
        members = [member for member in source.infolist() if not member.is_dir()]
        targets = [_safe_target(member, folder) for member in members]
        bar = tqdm(members, desc=f"unpacking {archive.name}", disable=None)
        for member, target in zip(bar, targets, strict=True):
            if target.exists() and target.stat().st_size == member.file_size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(target.name + ".part")
            with source.open(member) as packed, open(unfinished, "wb") as file:
                shutil.copyfileobj(packed, file)
            os.replace(unfinished, target)


def _safe_target(member: zipfile.ZipInfo, folder: Path) -> Path:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if is_link or path.is_absolute() or ".." in path.parts or ":" in member.filename or not path.parts:
        raise UnsafeArchive(f"{member.filename!r}: not a plain file inside the folder")
    target = folder.joinpath(*path.parts)
    if not target.resolve().is_relative_to(folder.resolve()):  # a link that was in the folder before
        raise UnsafeArchive(f"{member.filename!r}: leads out of {folder}")
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of the module docstring; returns the exit code."""
    parser = argparse.ArgumentParser(prog="cwic_lab.download", description="Fetch and unpack DIV2K.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subset", nargs="+", choices=("train", "valid"), default=("train", "valid"))
    options = parser.parse_args(arguments)
    try:
        download_div2k(options.folder, options.subset)
    except (DownloadError, UnsafeArchive) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
