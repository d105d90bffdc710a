"""Metadata in a file: carried as it is, never larger than the limits, never turning the picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cwic
from cwic import codec, container, errors, metadata
from cwic.container import Chunk
from cwic.metadata import Metadata

BUNDLES = Path(__file__).parent / "data" / "bundles"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d" dc:title="a"/></x:xmpmeta>'


def exif(orientation: int | None = None, order: str = "<", kind: int = 3) -> bytes:
    """A TIFF structure with a maker's name and perhaps an orientation, of any of EXIF's integer types."""
    tags = [struct.pack(order + "HHI4s", 0x010F, 2, 4, b"us!\0")]
    if orientation is not None:
        value = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], orientation).ljust(4, b"\0")
        tags.append(struct.pack(order + "HHI4s", 0x0112, kind, 1, value))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(tags))
    return head + b"".join(tags) + bytes(4)


def encode(carried: Metadata | None) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    return cwic.encode(image, model="tiny-li2018", metadata=carried, models_dir=BUNDLES)


FULL = Metadata(icc=b"profile" * 100, exif=exif(1), xmp=XMP % 1)


@pytest.mark.parametrize("carried", [Metadata(), FULL, Metadata(xmp=b"x"), Metadata(icc=bytes(2**22))])
def test_it_comes_back_as_it_was(carried: Metadata) -> None:
    data = encode(carried)
    assert codec.metadata(data) == carried
    assert set(cwic.inspect(data).chunks) - {"IMAP", "CODE"} == {metadata.KINDS[name] for name in carried.given()}
    np.testing.assert_array_equal(cwic.decode(data, models_dir=BUNDLES), cwic.decode(encode(None), models_dir=BUNDLES))


@given(st.binary(min_size=1), st.binary(), st.binary(min_size=1))
def test_chunks_round_trip(icc: bytes, tail: bytes, xmp: bytes) -> None:
    carried = Metadata(icc, exif() + tail, metadata.upright_xmp(xmp))
    assert metadata.from_chunks({chunk.kind: chunk.payload for chunk in metadata.to_chunks(carried)}) == carried


def test_kinds_may_be_skipped() -> None:
    assert all(kind[0].islower() and kind[1:].isupper() for kind in metadata.KINDS.values())


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"icc": "text"}, "the ICC profile is a str; allowed are bytes"),
        ({"xmp": b""}, "the XMP data has 0 bytes; 1 to 4194304 are allowed"),
        ({"icc": bytes(2**22 + 1)}, "4194305 bytes"),
        ({"exif": exif() + bytes(2**20)}, "the EXIF data has .* 1 to 1048576"),
        ({"exif": b"Exif\0\0" + exif()}, "begins with b'Exif'"),
        ({"exif": exif()[:17]}, "ends within its first directory"),
        ({"exif": exif(6)}, "orientation 6; allowed is 1"),
        ({"xmp": XMP % 3}, "orientation 3; allowed is 1"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(fields: dict[str, bytes], found: str) -> None:
    with pytest.raises(errors.UnsupportedImage, match=found):
        Metadata(**fields)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_and_set_as_pillow_reads_it(order: str, kind: int, orientation: int) -> None:
    turned = exif(orientation, order, kind)
    assert metadata.orientation(turned, None) == orientation
    if kind != 1:
        assert _pillow(turned) == orientation
        assert _pillow(metadata.upright_exif(turned)) == 1
    assert metadata.upright_exif(turned) == exif(1, order, kind)
    Metadata(exif=metadata.upright_exif(turned))


def test_orientation_in_xmp_counts_where_exif_has_none() -> None:
    other = b"<tiff:Orientation>8</tiff:Orientation>"
    assert metadata.orientation(None, XMP % 5) == metadata.orientation(exif(), XMP % 5) == 5
    assert metadata.orientation(exif(1), XMP % 5) == 1
    assert metadata.orientation(None, other) == 8
    assert metadata.orientation(exif(9), None) == metadata.orientation(None, None) == 1
    assert metadata.upright_xmp(XMP % 5) == XMP % 1 and metadata.upright_xmp(other) == other.replace(b"8", b"1")


def _pillow(data: bytes) -> int:
    found = Image.Exif()
    found.load(b"Exif\0\0" + data)
    return found[0x0112]


@pytest.mark.parametrize("name", ["icc", "exif", "xmp"])
@pytest.mark.parametrize(
    "payload",
    [
        b"", b"no zlib stream", zlib.compress(b"x")[:-1], zlib.compress(b"x") + b"\0", zlib.compress(b""),
        zlib.compress(bytes(2**22 + 1)), zlib.compress(bytes(2**28)), zlib.compress(exif(6) + XMP % 6),
    ],
    ids=["empty", "junk", "cut", "longer", "nothing", "too large", "bomb", "turned"],
)  # fmt: skip
def test_hostile_chunks_are_corrupt_and_the_picture_is_right_without_them(name: str, payload: bytes) -> None:
    header, chunks = container.unpack(encode(None))
    data = container.pack(header, [*(Chunk(*chunk) for chunk in chunks.items()), Chunk(metadata.KINDS[name], payload)])
    np.testing.assert_array_equal(cwic.decode(data, models_dir=BUNDLES), cwic.decode(encode(None), models_dir=BUNDLES))
    if name == "icc" and payload == zlib.compress(exif(6) + XMP % 6):
        return  # a profile is not read
    with pytest.raises(errors.Corrupt, match=metadata.KINDS[name]):
        codec.metadata(data)


@given(st.binary(max_size=200))
def test_any_chunk_gives_metadata_or_a_format_error(payload: bytes) -> None:
    for kind in metadata.KINDS.values():
        for changed in (payload, zlib.compress(payload)):
            try:
                metadata.from_chunks({kind: changed})
            except errors.FormatError as error:
                assert kind in str(error)


@given(st.binary(max_size=100))
def test_any_exif_is_read_or_refused(tail: bytes) -> None:
    for head in (b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0\x02\0\x12\x01"):
        try:
            upright = metadata.upright_exif(head + tail)
        except errors.UnsupportedImage:
            continue
        assert metadata.orientation(upright, None) == 1 and len(upright) == len(head + tail)
