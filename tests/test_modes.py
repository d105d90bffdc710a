"""Pictures of every mode: which pixels they become, what is said to be lost, and which are refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from cwic import imagefile
from cwic.errors import UnsupportedImage
from cwic.imagefile import Picture

RGBA = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
CUT = "of more than 8 bits a sample the upper 8 are kept"


def png(bit_depth: int, colour_type: int, row: bytes, width: int, transparent: bytes = b"") -> bytes:
    """A PNG of one row, written here because Pillow cannot write every kind."""

    def block(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = block(b"IHDR", struct.pack(">IIBBBBB", width, 1, bit_depth, colour_type, 0, 0, 0))
    key = block(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + head + key + block(b"IDAT", zlib.compress(b"\0" + row)) + block(b"IEND", b"")


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes) -> Picture:
    return imagefile.read_picture(data, "a file")


def check(data: bytes, pixels: object, notices: list[str] | None = None) -> None:
    """The picture in an image file's bytes is these pixels, with these notices."""
    found = read(data)
    assert found.pixels.dtype == np.uint8 and found.pixels.tolist() == np.asarray(pixels).tolist()
    assert found.notices == (notices or []) and found.is_exact == (CUT not in (notices or []))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_8_bits_with_and_without_alpha_are_exact(kind: str, channels: int) -> None:
    image = np.ascontiguousarray(RGBA[:, :, 0] if channels == 1 else RGBA[:, :, :channels])
    expected = image
    if kind == "WEBP" and channels < 3:  # it has no grey
        expected = np.dstack([image.reshape(5, 7, -1)[:, :, :1]] * 3 + [image.reshape(5, 7, -1)[:, :, 1:]])
    check(
        saved(Image.fromarray(image), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})), expected
    )


def test_palettes() -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.putdata([0, 1, 2])
    check(saved(palette), [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]])
    entries = [[[10, 20, 30, 255], [40, 50, 60, 0], [70, 80, 90, 255]]]
    check(saved(palette, transparency=1), entries)
    check(saved(palette, "GIF", transparency=1), entries)
    entries[0][0][3] = 7
    check(saved(palette, transparency=b"\x07\x00\xff"), entries)


def test_1_bit_and_few_bits_are_grey() -> None:
    check(png(1, 0, b"\xa0", 4), [[255, 0, 255, 0]])
    check(saved(Image.fromarray(np.array([[True, False]]))), [[255, 0]])
    check(png(2, 0, b"\x1b", 4), [[0, 85, 170, 255]])
    check(png(4, 0, b"\x0f", 2), [[0, 255]])


def test_a_transparent_colour_becomes_alpha() -> None:
    check(png(8, 2, bytes([1, 2, 3, 1, 2, 4]), 2, struct.pack(">HHH", 1, 2, 3)), [[[1, 2, 3, 0], [1, 2, 4, 255]]])
    check(png(8, 0, b"\x05\x06", 2, struct.pack(">H", 6)), [[[5, 255], [6, 0]]])
    check(png(1, 0, b"\xa0", 3, struct.pack(">H", 1)), [[[255, 0], [0, 255], [255, 0]]])
    check(png(1, 0, b"\xa0", 3, struct.pack(">H", 0)), [[[255, 255], [0, 0], [255, 255]]])
    check(png(2, 0, b"\x1b", 4, struct.pack(">H", 2)), [[[0, 255], [85, 255], [170, 0], [255, 255]]])
    check(png(4, 0, b"\x0f", 2, struct.pack(">H", 15)), [[[0, 255], [255, 0]]])


def test_16_bits_are_cut_and_it_is_said() -> None:
    check(png(16, 0, b"\x12\xff\x80\x00", 2), [[0x12, 0x80]], [CUT])
    check(png(16, 2, b"\x12\xff\x34\xff\x56\x00", 1), [[[0x12, 0x34, 0x56]]], [CUT])
    check(png(16, 4, b"\x12\xff\x34\xff", 1), [[[0x12, 0x34]]], [CUT])
    check(png(16, 6, b"\x12\xff\x34\xff\x56\x00\x78\x01", 1), [[[0x12, 0x34, 0x56, 0x78]]], [CUT])
    check(b"P6 1 1 65535\n" + b"\x12\x34" * 3, [[[0x12] * 3]], [CUT])
    check(b"P5 2 1 65535\n\x12\x34\xff\xff", [[0x12, 0xFF]], [CUT])
    check(b"P5 2 1 255\n\x12\x34", [[0x12, 0x34]])
    for order in "<>":
        deep = Image.fromarray(np.array([[0x12FF, 0xFF00]], np.uint16).astype(order + "u2"))
        check(saved(deep, "TIFF"), [[0x12, 0xFF]], [CUT])
    check(saved(Image.fromarray(np.array([[0x1234, 0xFF00]], np.uint16)), "JPEG2000"), [[0x12, 0xFF]], [CUT])


def test_a_transparent_colour_of_16_bits() -> None:
    """Of grey in all 16 bits; of RGB, which Pillow has cut by then, in the upper 8, and that is said."""
    check(png(16, 0, b"\x12\xff\x12\xfe", 2, b"\x12\xff"), [[[0x12, 0], [0x12, 255]]], [CUT])
    rows = b"\x12\xff\x34\xff\x56\xff" + b"\x13\xff\x34\xff\x56\xff"
    pixels = [[[0x12, 0x34, 0x56, 0], [0x13, 0x34, 0x56, 255]]]
    check(png(16, 2, rows, 2, rows[:6]), pixels, [CUT, "the transparent colour is compared in these 8 bits"])


def test_more_bits_are_noticed_where_pillow_says_nothing() -> None:
    rgb = Image.fromarray(np.ascontiguousarray(RGBA[:, :, :3]))
    plain = saved(rgb, "JPEG2000")
    assert read(plain).notices == []
    precision = plain.index(b"\xff\x4f\xff\x51") + 42
    deep = plain[:precision] + bytes([11]) + plain[precision + 1 :]
    assert read(deep).notices == [CUT]
    if "AVIF" in Image.SAVE:
        plain = saved(rgb, "AVIF")
        assert read(plain).notices == []
        flags = plain.index(b"av1C") + 6
        from cwic.modes import _is_deep_avif  # no encoder at hand writes 10 bits

        assert _is_deep_avif(plain[:flags] + bytes([plain[flags] | 0x40]) + plain[flags + 1 :])


@pytest.mark.parametrize(("mode", "kind"), [("I", "TIFF"), ("F", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF")])
def test_other_modes_are_refused_by_name(mode: str, kind: str) -> None:
    expected = f"a file: found mode {mode}; allowed are grey, .* palette, .*CMYK"
    if mode == "YCbCr":
        expected += "|cannot be read"  # Pillow 11.3 does not read what it has written
    with pytest.raises(UnsupportedImage, match=expected):
        read(saved(Image.new(mode, (4, 4)), kind))


def test_signed_16_bits_are_refused() -> None:
    signed = saved(Image.new("I;16", (4, 4)), "TIFF", tiffinfo={339: 2})
    with pytest.raises(UnsupportedImage, match="found mode I;"):
        read(signed)


def test_of_several_pictures_the_first_is_kept_and_it_is_said() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    for kind in ("PNG", "TIFF", "GIF", "WEBP", "MPO"):
        found = read(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert found.notices == ["of 3 pictures the first is kept"] and found.is_exact
        assert np.abs(found.pixels[0, 0, :3].astype(int) - [255, 0, 0]).max() <= 3


CMYK = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 4), np.uint8), "CMYK").resize((64, 64), 1)


@pytest.mark.parametrize("ycck", [False, True], ids=["CMYK", "YCCK"])
def test_cmyk_jpeg_without_a_profile_is_converted_and_it_is_said(ycck: bool) -> None:
    data = saved(CMYK, "JPEG", quality=95)
    if ycck:
        transform = data.index(b"Adobe\0") + 11
        data = data[:transform] + b"\2" + data[transform + 1 :]
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "CMYK"
        expected = np.asarray(picture.convert("RGB"))
    check_cmyk = read(data)
    np.testing.assert_array_equal(check_cmyk.pixels, expected)
    assert check_cmyk.notices == ["CMYK is converted to RGB without a profile"] and not check_cmyk.is_exact


def cmyk_profile() -> bytes:
    """A small ICC profile: from four inks to L*a*b*, through a table of two points an ink; black ink is L* = 0.

    All other inks are made to mean one strong red, so that no plain conversion gives the same. (No ink is white.)
    """
    points = np.array([[(136, 200, 190), (0, 128, 128)][black] for _ in range(8) for black in (0, 1)], np.uint8)
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + points.tobytes() + ramp * 3
    head = struct.pack(
        ">I4sI4s4s4s12x4s28x3i48x", 128 + 4 + 12 + len(table), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp",
        63190, 65536, 54061,
    )  # fmt: skip
    return head + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def test_cmyk_goes_through_its_profile_and_the_profile_is_used_up() -> None:
    found = read(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", icc_profile=cmyk_profile()))
    assert found.notices == ["CMYK is converted to sRGB through its profile"] and not found.is_exact
    red, green, blue = found.pixels[4, 4].tolist()
    assert red > 200 and green < 90 and blue < 90  # without the profile it is cyan
    assert found.metadata.icc is None


@pytest.mark.parametrize("profile", [b"junk", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
def test_a_profile_that_is_not_cmyks_is_not_used_and_it_is_said(profile: bytes) -> None:
    found = read(saved(CMYK, "JPEG", icc_profile=profile))
    (notice,) = found.notices
    assert "without its profile, which cannot be used" in notice and found.pixels.shape == (64, 64, 3)
