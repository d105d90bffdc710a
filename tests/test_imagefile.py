"""Image files: what is read, what is refused and how it is named, and writing that leaves no half files."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwic import imagefile
from cwic.errors import UnsupportedImage

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = RGB[:, :, 0]


def png(bit_depth: int, colour_type: int, row: bytes, size: tuple[int, int] = (1, 1)) -> bytes:
    """A PNG with one row of pixels, written here because Pillow cannot write every kind."""

    def block(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = block(b"IHDR", struct.pack(">IIBBBBB", *size, bit_depth, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + block(b"IDAT", zlib.compress(b"\0" + row)) + block(b"IEND", b"")


@pytest.mark.parametrize("image", [RGB, np.ascontiguousarray(GREY)], ids=["RGB", "grey"])
@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".bmp", ".webp", ".ppm"])
def test_write_then_read(tmp_path: Path, image: np.ndarray, suffix: str) -> None:
    path = tmp_path / ("picture" + suffix)
    imagefile.write_image(path, image)
    returned = imagefile.read_image(path)
    if suffix == ".webp" and image.ndim == 2:  # WebP has no grey: three equal channels
        returned = returned[:, :, 1]
    assert returned.dtype == np.uint8
    np.testing.assert_array_equal(returned, image)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_jpeg_is_written_close_to_the_pixels(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[np.newaxis], 64, axis=0)
    imagefile.write_image(tmp_path / "a.jpg", ramp)
    assert np.abs(imagefile.read_image(tmp_path / "a.jpg").astype(int) - ramp).max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_measurements_take_rgb_and_grey_alone(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.png" if mode in ("RGBA", "LA", "I;16") else "a.tif")
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(UnsupportedImage, match="a.*(allowed are|cannot be read)"):  # Pillow 11.3: not its own YCbCr
        imagefile.read_image(path)


def test_16_bits_are_refused_where_pillow_would_cut_them(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(16, 2, b"\x12\x34" * 3))
    with pytest.raises(UnsupportedImage, match="of more than 8 bits a sample"):
        imagefile.read_image(path)
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 1 1 65535\n" + b"\x12\x34" * 3)
    with pytest.raises(UnsupportedImage, match="of more than 8 bits a sample"):
        imagefile.read_image(path)


def test_the_same_png_with_8_bits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 2, b"\x12\x34\x56"))
    assert imagefile.read_image(path).tolist() == [[[0x12, 0x34, 0x56]]]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_picture_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for size in ((16_385, 16_384), (65_536, 1), (100_000, 100_000)):
        path.write_bytes(png(8, 2, b"\0\0\0", size))
        with pytest.raises(UnsupportedImage, match="pixels"):
            imagefile.read_image(path)


def test_pillows_own_limit_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert imagefile.read_image(path).shape == (20, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_of_an_animation_the_first_picture_is_measured(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert imagefile.read_image(tmp_path / "a.png")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_broken_files_are_unsupported_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / ("a" + suffix)
    imagefile.write_image(path, RGB)
    data = path.read_bytes()
    for length in range(0, len(data) - 20, 7):
        path.write_bytes(data[:length])
        try:
            imagefile.read_image(path)  # some formats are complete before their last byte
        except UnsupportedImage as error:
            assert str(path) in str(error)


def test_a_truncated_png_and_a_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    imagefile.write_image(path, RGB)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UnsupportedImage, match="cannot be read as an image"):
        imagefile.read_image(path)
    path.write_text("not a picture")
    with pytest.raises(UnsupportedImage, match="not an image that Pillow knows"):
        imagefile.read_image(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        imagefile.read_image(tmp_path / "none.png")


@pytest.mark.parametrize("name", ["a", "a.cwic", "a.xyz", "a.gif"])
def test_a_suffix_without_a_writer_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=r"use \.png"):
        imagefile.write_image(tmp_path / name, RGB)


def test_other_arrays_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedImage, match="shape"):
        imagefile.write_image(tmp_path / "a.png", np.zeros((4, 4, 5), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_write_bytes_replaces_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.cwic"
    imagefile.write_bytes(path, b"first")
    imagefile.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"

    asked: list[int] = []
    monkeypatch.setattr(imagefile.os, "fsync", lambda number: asked.append(os.fstat(number).st_size))

    def fail(*_: object) -> None:
        assert asked == [len(b"third")]  # all of it is on the disk before it has the name
        raise OSError(errno.ENOSPC, "disk full", "a.part")

    monkeypatch.setattr(imagefile.os, "replace", fail)
    with pytest.raises(OSError, match=r"disk full: '.*a\.cwic'$"):
        imagefile.write_bytes(path, b"third")
    assert path.read_bytes() == b"second" and [p.name for p in tmp_path.iterdir()] == ["a.cwic"]
