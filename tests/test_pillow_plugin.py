"""The plug-in for Pillow: lazy opening, saving, metadata, and the errors that Pillow's users know."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

import cwic
from cwic import codec, container, metrics, pillow_plugin
from cwic.metadata import Metadata

BUNDLES = Path(__file__).parent / "data" / "bundles"
SOURCE = Path(__file__).parent.parent / "src"
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CWIC_MODELS", str(BUNDLES))


def pixels(mode: str, height: int = 20, width: int = 30) -> np.ndarray:
    made = np.random.default_rng(7).integers(0, 256, (height, width, CHANNELS[mode]), np.uint8)
    return made[:, :, 0] if mode == "L" else made


def saved(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "CWIC", **{"model": "tiny-cwic", **options})
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def exif(orientation: int | None = None) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "us"
    if orientation is not None:
        tags[ExifTags.Base.Orientation] = orientation
    return tags


@pytest.mark.parametrize("mode", CHANNELS)
def test_saving_and_opening_do_what_the_library_does(mode: str, tmp_path: Path) -> None:
    image, path = pixels(mode), tmp_path / "a.cwic"
    Image.fromarray(image).save(path, model="tiny-cwic", quality=70)
    data = path.read_bytes()
    assert data == cwic.encode(image, model="tiny-cwic", quality=70) == saved(Image.fromarray(image), quality=70)
    for source in (path, str(path), io.BytesIO(data)):
        with Image.open(source) as picture:
            assert (picture.format, picture.mode, picture.size) == ("CWIC", mode, (30, 20))
            assert picture.info == {"cwic": "tiny-cwic"} and picture.get_format_mimetype() == "image/x-cwic"
            np.testing.assert_array_equal(np.asarray(picture), cwic.decode(data))
            np.testing.assert_array_equal(np.asarray(picture), cwic.decode(data))  # a second time, from memory


def test_lossless_files_are_opened_too() -> None:
    image = np.zeros((40, 50), np.uint8)
    data = saved(Image.fromarray(image))
    assert cwic.inspect(data).is_lossless
    np.testing.assert_array_equal(np.asarray(opened(data)), image)


def test_nothing_is_decoded_and_no_network_is_loaded_before_load(tmp_path: Path) -> None:
    path = tmp_path / "a.cwic"
    path.write_bytes(saved(Image.fromarray(pixels("RGB")), icc_profile=ICC))
    program = (
        "import sys, cwic.pillow_plugin; from PIL import Image; picture = Image.open(sys.argv[1])\n"
        "picture.size, picture.mode, picture.info; print('onnxruntime' in sys.modules)\n"
        "picture.load(); print('onnxruntime' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(SOURCE), "PATH": "", "CWIC_MODELS": str(BUNDLES)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["False", "True"]


def test_the_keywords_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    image = pixels("RGB", 64, 96)
    picture = Image.fromarray(image)
    lightness = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
    reached = metrics.psnr(image, cwic.decode(saved(picture)))
    targets = ({"bpp": 0.15}, {"size": 100}, {"psnr": reached}, {"quality": 12.5})
    for options in (*targets, {"importance": "auto"}, {"importance": lightness}, {}):
        assert saved(picture, **options) == cwic.encode(image, model="tiny-cwic", **options)
    with_picture = saved(picture, importance=Image.fromarray(lightness).convert("RGB"))
    assert with_picture == cwic.encode(image, model="tiny-cwic", importance=lightness)
    monkeypatch.delenv("CWIC_MODELS")
    assert saved(picture, models_dir=str(BUNDLES)) == cwic.encode(image, model="tiny-cwic", models_dir=BUNDLES)


def test_encoderinfo_of_the_picture_counts() -> None:
    picture = Image.fromarray(pixels("L"))
    expected = saved(picture, quality=10)
    picture.encoderinfo = {"quality": 10}
    assert saved(picture, quality=90) == expected != cwic.encode(pixels("L"), model="tiny-cwic", quality=90)


@pytest.mark.parametrize("mode", ["1", "P", "PA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F", "RGBX", "La", "LAB"])
def test_other_modes_are_refused_as_pillow_refuses_them(mode: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"^cannot write mode {mode} as CWIC$"):
        Image.new(mode, (8, 8)).save(tmp_path / "a.cwic", model="tiny-cwic")
    assert list(tmp_path.iterdir()) == []


def test_a_colour_that_stands_for_transparency_becomes_alpha(tmp_path: Path) -> None:
    for mode, key in (("L", 5), ("RGB", (5, 5, 5))):
        Image.new(mode, (9, 8), 5 if mode == "L" else key).save(tmp_path / "a.png", transparency=key)
        with Image.open(tmp_path / "a.png") as picture, opened(saved(picture)) as found:
            assert found.mode == mode + "A" and found.getextrema()[-1] == (0, 0)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"quality": 101}, ValueError, "quality is 101; 0 to 100 is allowed"),
        ({"quality": 5, "bpp": 1}, ValueError, "at most one target"),
        ({"size": 10}, ValueError, "bytes"),
        ({"importance": "face.png"}, ValueError, "importance is 'face.png'"),
        ({"exif": b"no EXIF"}, ValueError, "the EXIF data begins with"),
        ({"xmp": 3}, ValueError, "xmp is a int; allowed are bytes"),
        ({"icc_profile": bytes(2**22 + 1)}, ValueError, "ICC profile has 4194305 bytes"),
        ({"model": "none"}, OSError, "the model 'none' is not installed"),
        ({"model": "tiny-li2018", "quality": 5}, OSError, "a li2018 model has one rate"),
    ],
)
def test_what_cannot_be_saved(options: dict[str, object], kind: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        Image.fromarray(pixels("RGB")).save(tmp_path / "a.cwic", **{"model": "tiny-cwic", **options})
    assert list(tmp_path.iterdir()) == []


def test_metadata_goes_in_by_keyword_and_comes_out_in_info() -> None:
    tags = exif()
    data = saved(Image.fromarray(pixels("RGBA")), icc_profile=ICC, exif=tags, xmp=(XMP % 1).decode())
    body = tags.tobytes().removeprefix(b"Exif\0\0")
    assert codec.metadata(data) == Metadata(ICC, body, XMP % 1)
    picture = opened(data)
    assert picture.info == {"cwic": "tiny-cwic", "icc_profile": ICC, "exif": b"Exif\0\0" + body, "xmp": XMP % 1}
    assert picture.getexif()[ExifTags.Base.Make] == "us"


def test_metadata_goes_in_from_info_unless_a_keyword_says_otherwise() -> None:
    first = saved(Image.fromarray(pixels("RGB")), icc_profile=ICC, exif=exif(), xmp=XMP % 1)
    again = saved(opened(first))
    assert codec.metadata(again) == codec.metadata(first) != Metadata()
    other = saved(opened(first), icc_profile=None, exif=b"", xmp=b"<other/>")
    assert codec.metadata(other) == Metadata(xmp=b"<other/>")


def test_metadata_reaches_and_leaves_other_kinds_of_files(tmp_path: Path) -> None:
    Image.fromarray(pixels("RGB")).save(tmp_path / "a.jpg", icc_profile=ICC, exif=exif(), xmp=XMP % 1)
    with Image.open(tmp_path / "a.jpg") as picture:
        picture.save(tmp_path / "a.cwic", model="tiny-cwic")
    with Image.open(tmp_path / "a.cwic") as picture:
        picture.save(tmp_path / "b.jpg", **{name: picture.info[name] for name in ("icc_profile", "exif", "xmp")})
    with Image.open(tmp_path / "b.jpg") as picture:
        assert picture.info["icc_profile"] == ICC and picture.info["xmp"] == XMP % 1
        assert picture.getexif()[ExifTags.Base.Make] == "us"


def test_what_cannot_be_carried_from_info_is_left_out_with_a_warning() -> None:
    picture = Image.fromarray(pixels("RGB"))
    picture.info |= {"exif": b"no EXIF", "icc_profile": ICC}
    with pytest.warns(UserWarning, match="the EXIF data is left out: the EXIF data begins with"):
        data = saved(picture)
    assert codec.metadata(data) == Metadata(icc=ICC)


@pytest.mark.parametrize("by_keyword", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_exif_says(orientation: int, by_keyword: bool) -> None:
    picture = Image.fromarray(pixels("RGB"))
    tags = exif(orientation)
    if not by_keyword:
        picture.info["exif"] = tags.tobytes()
    data = saved(picture, **{"exif": tags} if by_keyword else {})
    picture.info["exif"] = tags.tobytes()
    upright = ImageOps.exif_transpose(picture)
    assert cwic.inspect(data).width == upright.width
    np.testing.assert_array_equal(cwic.decode(data), cwic.decode(saved(upright)))
    assert opened(data).getexif()[ExifTags.Base.Orientation] == 1


def test_a_picture_of_importance_is_turned_with_the_pixels() -> None:
    image, drawn = pixels("RGB", 64, 96), Image.linear_gradient("L")
    turned = saved(Image.fromarray(image), exif=exif(6), importance=drawn)
    expected = saved(Image.fromarray(np.rot90(image, -1).copy()), importance=drawn.rotate(-90))
    np.testing.assert_array_equal(cwic.decode(turned), cwic.decode(expected))


def test_orientation_of_xmp_alone_counts_and_that_of_exif_counts_more() -> None:
    picture = Image.fromarray(pixels("RGB"))
    assert opened(saved(picture, xmp=XMP % 6)).size == (20, 30)
    assert opened(saved(picture, xmp=XMP % 6, exif=exif())).size == (20, 30)
    assert opened(saved(picture, xmp=XMP % 6, exif=exif(1))).size == (30, 20)


def test_tiff_files_are_not_turned_twice(tmp_path: Path) -> None:
    Image.fromarray(pixels("RGB")).save(tmp_path / "a.tif", exif=exif(6))
    with Image.open(tmp_path / "a.tif") as picture:
        data = saved(picture, exif=exif(6))
    assert opened(data).size == (20, 30)


@pytest.mark.parametrize("start", [b"", b"CWI", b"CWIK\1", b"\x89PNG\r\n\x1a\n"])
def test_other_files_are_not_identified(start: bytes) -> None:
    with pytest.raises(UnidentifiedImageError):
        opened(start + bytes(40))
    with pytest.raises(SyntaxError, match="a .cwic file begins with"):
        pillow_plugin.CwicImageFile(io.BytesIO(start + bytes(40)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:10], "Truncated|needs 29 bytes|of the file"),
        (lambda data: data[:4] + b"\2" + data[5:], "version 2"),
        (lambda data: data[:8] + b"\xff" + data[9:], "the header has the CRC"),
    ],
)
def test_a_damaged_header_is_unidentified_with_our_message(damage, message: str) -> None:
    with pytest.raises(UnidentifiedImageError, match=message):
        opened(damage(saved(Image.fromarray(pixels("RGB")))))


def test_damage_after_the_header_is_an_os_error_of_load_and_of_verify() -> None:
    data = saved(Image.fromarray(pixels("RGBA")), icc_profile=ICC)
    header_ends = 29 + len("tiny-cwic") + 4
    for position in range(header_ends, len(data), 97):
        flipped = bytearray(data)
        flipped[position] ^= 1
        for damaged in (bytes(flipped), data[:position], data + b"x"):
            picture = opened(damaged)
            assert picture.size == (30, 20)
            for _ in range(2):  # a failed load leaves no picture behind
                with pytest.raises(OSError, match="CRC|needs|follow"):
                    picture.load()
            with pytest.raises(OSError, match="CRC|needs|follow"):
                opened(damaged).verify()


def test_damaged_metadata_is_an_os_error_as_it_is_for_the_commands() -> None:
    header, chunks = container.unpack(saved(Image.fromarray(pixels("RGB"))))
    parts = [container.Chunk(kind, payload) for kind, payload in chunks.items()]
    damaged = container.pack(header, [*parts, container.Chunk("iCCP", b"no zlib stream")])
    assert "icc_profile" not in opened(damaged).info
    with pytest.raises(OSError, match="iCCP: the zlib stream cannot be read"):
        opened(damaged).load()
    with pytest.raises(OSError, match="iCCP: the zlib stream cannot be read"):
        opened(damaged).verify()


def test_verify_needs_no_bundle_and_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.fromarray(pixels("RGB")))
    loaded = opened(data)
    loaded.load()
    with pytest.raises(RuntimeError, match="directly after open"):
        loaded.verify()
    monkeypatch.delenv("CWIC_MODELS")
    opened(data).verify()
    with pytest.raises(OSError, match="the model 'tiny-cwic' is not installed"):
        opened(data).load()


def test_pillows_check_for_decompression_bombs_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.fromarray(pixels("L")))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.warns(Image.DecompressionBombWarning):
        opened(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(Image.DecompressionBombError):
        opened(data)


def test_every_conformance_file_is_shown_as_it_should_be_or_refused() -> None:
    folder = Path(__file__).parent / "conformance"
    good = sorted((folder / "good").glob("*.cwic"))
    bad = sorted((folder / "bad").glob("*.cwic"))
    assert good and bad
    for path in good:
        with Image.open(path) as picture, Image.open(path.with_suffix(".png")) as expected:
            assert (picture.mode, picture.size) == (expected.mode, expected.size)
            assert np.abs(np.asarray(picture).astype(int) - np.asarray(expected)).max() <= 1
    for path in bad:
        with pytest.raises(OSError), Image.open(path) as picture:
            picture.load()
