"""What is carried beside a picture, ICC profile, EXIF, XMP <-> chunks that may be skipped (docs/format.md, 8.9).

Pixels have their top at the top. So the orientation that EXIF or XMP may hold is 1 in everything that is carried:
`upright` sets it, once the pixels were turned by `orientation`.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, replace

from cwic.container import Chunk
from cwic.errors import Corrupt, UnsupportedImage

# By the name of the field: the kind of chunk, the largest size in bytes, and what people call it.
KINDS = {"icc": "iCCP", "exif": "eXIF", "xmp": "xMPD"}
LIMITS = {"icc": 2**22, "exif": 2**20, "xmp": 2**22}
WORDS = {"icc": "ICC profile", "exif": "EXIF data", "xmp": "XMP data"}

_ORIENTATION = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # by EXIF's number of the type
_IN_XMP = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)([0-9])")


@dataclass(frozen=True)
class Metadata:
    """icc: an ICC profile. exif: a TIFF structure, byte order mark first. xmp: an XMP packet. None: there is none.

    Raises UnsupportedImage for other types, for more bytes than LIMITS has, for EXIF that cannot be read, and for an
    orientation that would turn the picture.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def given(self) -> dict[str, bytes]:
        """Those that are not None, by name."""
        return {name: content for name, content in vars(self).items() if content is not None}

    def __post_init__(self) -> None:
        for name, content in self.given().items():
            if not isinstance(content, bytes):
                raise UnsupportedImage(f"the {WORDS[name]} is a {type(content).__name__}; allowed are bytes")
            if not 1 <= len(content) <= LIMITS[name]:
                raise UnsupportedImage(f"the {WORDS[name]} has {len(content)} bytes; 1 to {LIMITS[name]} are allowed")
        if self.exif is not None:
            _orientations(self.exif)  # refuses what is no EXIF
        turned = orientation(self.exif, self.xmp)
        if turned != 1:
            raise UnsupportedImage(f"the metadata says orientation {turned}; allowed is 1: turn the pixels instead")


def orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """How the stored pixels have to be turned, 1..8 as in EXIF, where 1 is not at all. Of both, EXIF counts.

    Raises UnsupportedImage for EXIF that cannot be read.
    """
    found = [] if exif is None else [value for _, _, value in _orientations(exif)]
    if not found and xmp is not None:
        found = [int(match[2]) for match in _IN_XMP.finditer(xmp)]
    return found[-1] if found and 1 <= found[-1] <= 8 else 1


def upright_exif(exif: bytes) -> bytes:
    """The same with orientation 1 where there is one. Raises UnsupportedImage for EXIF that cannot be read."""
    changed = bytearray(exif)
    for position, form, _ in _orientations(exif):
        struct.pack_into(form, changed, position, 1)
    return bytes(changed)


def upright_xmp(xmp: bytes) -> bytes:
    """The same with orientation 1 where there is one."""
    return _IN_XMP.sub(rb"\g<1>1", xmp)


def to_chunks(metadata: Metadata) -> list[Chunk]:
    """A chunk for each that is given, deflated."""
    return [Chunk(KINDS[name], zlib.compress(content, 9)) for name, content in metadata.given().items()]


def from_chunks(chunks: dict[str, bytes]) -> Metadata:
    """The inverse, from the payloads of a file by kind. Raises Corrupt."""
    found = Metadata()
    for name, kind in KINDS.items():
        if kind in chunks:
            content = _inflated(kind, chunks[kind], LIMITS[name])
            try:
                found = replace(found, **{name: content})
            except UnsupportedImage as error:
                raise Corrupt(f"{kind}: {error}") from error
    return found


def _inflated(kind: str, payload: bytes, limit: int) -> bytes:
    """The bytes of a zlib stream that is all of the payload, never more than limit + 1 of them."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(payload, limit + 1)
    except zlib.error as error:
        raise Corrupt(f"{kind}: the zlib stream cannot be read: {error}") from error
    if len(content) <= limit and (not stream.eof or stream.unused_data):
        raise Corrupt(f"{kind}: the zlib stream must end with the payload, neither before nor after")
    return content


def _orientations(exif: bytes) -> list[tuple[int, str, int]]:
    """Every orientation in the first directory: its position, how it is packed, and its value."""
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        raise UnsupportedImage(f"the EXIF data begins with {exif[:4]!r}; allowed are {list(_BYTE_ORDERS)}")
    found = []
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, n_values = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _ORIENTATION and kind in _INTEGERS and n_values == 1:
                form = order + _INTEGERS[kind]
                found.append((entry + 8, form, int(struct.unpack_from(form, exif, entry + 8)[0])))
    except struct.error as error:
        raise UnsupportedImage(f"the EXIF data ends within its first directory: {error}") from error
    return found
