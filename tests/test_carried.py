"""Metadata from image files that Pillow wrote, through a .cwic file, into image files that Pillow reads."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

import cwic
from cwic import cli, codec, imagefile, metadata
from cwic.errors import UnsupportedImage
from cwic.metadata import Metadata

BUNDLES = Path(__file__).parent / "data" / "bundles"
MODEL = ["--model", "tiny-li2018", "--models", str(BUNDLES)]
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d" dc:title="\xc3\xa4"/></x:xmpmeta>'
RGB = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
# EXIF's orientation -> what turns the stored rows into upright ones
UPRIGHT = {
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}  # fmt: skip


def exif(orientation: int | None) -> Image.Exif:
    """As a camera writes it: a maker, a time, a place, and perhaps the orientation."""
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "us"
    if orientation is not None:
        tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2026:11:26 12:00:00"}
    tags[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return tags


def saved(kind: str, orientation: int | None = None, image: np.ndarray = RGB) -> bytes:
    """An image file with all that it can carry."""
    options: dict[str, object] = {"icc_profile": ICC, "exif": exif(orientation)}
    options |= {} if kind in ("PNG", "TIFF") else {"xmp": XMP % (orientation or 1)}
    if kind == "PNG":
        options["pnginfo"] = info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", (XMP % (orientation or 1)).decode())
    if kind == "TIFF":
        options["exif"][700] = XMP % (orientation or 1)  # type: ignore[index]
        options["exif"] = options["exif"].tobytes()  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **{"lossless": True, **options} if kind == "WEBP" else options)
    return buffer.getvalue()


def check_exif(found: bytes | None) -> None:
    """All but the orientation is there, and that is 1 or not there."""
    tags = Image.Exif()
    tags.load(b"Exif\0\0" + (found or b""))
    assert tags[ExifTags.Base.Make] == "us" and tags.get(ExifTags.Base.Orientation, 1) == 1
    assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2026:11:26 12:00:00"
    assert tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_orientation_is_applied_once_and_everything_is_carried(kind: str, orientation: int | None) -> None:
    image = np.repeat(np.repeat(RGB, 16, axis=0), 16, axis=1)  # so that JPEG does not blur it beyond recognition
    found = imagefile.read_picture(saved(kind, orientation, image), "a file")
    assert found.notices == found.left_out == []
    expected = UPRIGHT[orientation or 1](image)
    assert found.pixels.shape == expected.shape
    assert np.abs(found.pixels[8::16, 8::16].astype(int) - expected[8::16, 8::16]).mean() < 20
    if kind in ("PNG", "WEBP", "TIFF"):
        np.testing.assert_array_equal(found.pixels, expected)
    assert found.metadata.icc == ICC and found.metadata.xmp is not None
    assert metadata.upright_xmp(found.metadata.xmp) == found.metadata.xmp and b"dc:title" in found.metadata.xmp
    check_exif(found.metadata.exif)


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_from_every_kind_to_every_kind_through_the_commands(source: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(saved(source, 6))
    assert cli.main(["encode", str(tmp_path / "in"), "-o", str(tmp_path / "a.cwic"), *MODEL]) == 0
    carried = codec.metadata((tmp_path / "a.cwic").read_bytes())
    out = tmp_path / ("out" + suffix)
    assert cli.main(["decode", str(tmp_path / "a.cwic"), "-o", str(out), "--models", str(BUNDLES)]) == 0
    found = imagefile.read_picture(out.read_bytes(), "out")
    assert found.pixels.shape == (7, 5, 3)
    assert found.metadata.icc == carried.icc == ICC and found.metadata.xmp == carried.xmp
    check_exif(found.metadata.exif)
    with Image.open(out) as picture:
        assert picture.getexif().get(ExifTags.Base.Orientation, 1) == 1 and picture.size == (5, 7)


def test_orientation_of_xmp_alone_is_applied() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", (XMP % 6).decode())
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG", pnginfo=info)
    found = imagefile.read_picture(buffer.getvalue(), "a file")
    np.testing.assert_array_equal(found.pixels, np.rot90(RGB, -1))
    assert found.metadata == Metadata(xmp=XMP % 1)


def test_exif_of_old_pngs_is_found() -> None:
    body = exif(3).tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(body):8}\n{body.hex()}\n")
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG", pnginfo=info)
    found = imagefile.read_picture(buffer.getvalue(), "a file")
    np.testing.assert_array_equal(found.pixels, RGB[::-1, ::-1])
    check_exif(found.metadata.exif)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_what_cannot_be_carried_is_left_out_with_a_notice() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "TIFF", icc_profile=bytes(metadata.LIMITS["icc"] + 1))
    found = imagefile.read_picture(buffer.getvalue(), "a file")
    assert found.metadata == Metadata() and found.notices == []
    (notice,) = found.left_out
    assert notice.startswith("the ICC profile is left out: ")
    for kind in ("PNG", "WEBP", "JPEG"):
        buffer = io.BytesIO()
        Image.fromarray(RGB).save(buffer, kind, exif=b"Exif\0\0no EXIF", icc_profile=ICC)
        found = imagefile.read_picture(buffer.getvalue(), "a file")
        assert found.pixels.shape == RGB.shape and found.metadata == Metadata(icc=ICC) and found.notices == []
        (notice,) = found.left_out
        assert notice.startswith("the EXIF data is left out: ")


def test_what_a_kind_of_file_does_not_take_is_left_out_with_a_notice() -> None:
    large = Metadata(icc=ICC, xmp=bytes(70_000))
    data, notices = imagefile.to_bytes(RGB, ".jpg", large)
    assert ["the XMP data is left out, which JPEG does not take: " in notice for notice in notices] == [True]
    assert imagefile.read_picture(data, "a file").metadata == Metadata(icc=ICC)
    data, notices = imagefile.to_bytes(RGB, ".bmp", large)
    assert [notice.split(",")[0] for notice in notices] == ["the ICC profile is left out", "the XMP data is left out"]
    data, notices = imagefile.to_bytes(RGB, ".png", Metadata(xmp=b"\xff\xfe"))
    assert len(notices) == 1 and imagefile.read_picture(data, "a file").metadata == Metadata()


def test_exif_does_not_change_the_structure_of_a_tiff_file() -> None:
    hostile = Image.Exif()
    hostile[256], hostile[257], hostile[258], hostile[271] = 1, 1, 1, "us"
    data, notices = imagefile.to_bytes(RGB, ".tif", Metadata(exif=hostile.tobytes().removeprefix(b"Exif\0\0")))
    assert not notices
    np.testing.assert_array_equal(imagefile.read_picture(data, "a file").pixels, RGB)


def test_strip_leaves_the_upright_picture_alone(tmp_path: Path) -> None:
    for name, options in (("kept", []), ("bare", ["--strip", "--strict"])):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(saved("JPEG", 6))
        assert cli.main(["encode", str(path), *options, *MODEL]) == 0
    kept, bare = ((tmp_path / f"{name}.cwic").read_bytes() for name in ("kept", "bare"))
    assert codec.metadata(bare) == Metadata() and codec.metadata(kept).exif
    np.testing.assert_array_equal(cwic.decode(bare, models_dir=BUNDLES), cwic.decode(kept, models_dir=BUNDLES))
    assert {"iCCP", "eXIF", "xMPD"} == cwic.inspect(kept).chunks.keys() - cwic.inspect(bare).chunks.keys()


def test_alpha_goes_where_it_can_and_is_refused_elsewhere() -> None:
    for channels in (2, 4):
        image = np.random.default_rng(0).integers(0, 256, (9, 8, channels), np.uint8)
        for suffix in (".png", ".webp", ".tif", ".avif"):
            found = imagefile.read_picture(imagefile.to_bytes(image, suffix, Metadata())[0], "a file").pixels
            np.testing.assert_array_equal(found[:, :, -1], image[:, :, -1])
            if suffix != ".avif":
                np.testing.assert_array_equal(found[:, :, 0], image[:, :, 0])
        with pytest.raises(UnsupportedImage, match=r"has alpha, which JPEG does not hold; use \.png, \.webp"):
            imagefile.to_bytes(image, ".jpg", Metadata())


def test_avif_is_written_close_to_the_pixels() -> None:
    data, _ = imagefile.to_bytes(np.repeat(np.repeat(RGB, 8, 0), 8, 1), ".avif", Metadata())
    found = imagefile.read_picture(data, "a file").pixels
    assert np.abs(found[::8, ::8].astype(int) - RGB).max() <= 3


def test_plug_ins_are_loaded_where_pillow_does_not_know_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one of our own in the place of pillow-heif's: a kind of file that begins with FAKE, then holds a PNG."""
    calls = []

    def register() -> None:
        calls.append("registered")
        monkeypatch.setattr(imagefile.Image, "open", lambda file: original(io.BytesIO(file.read()[4:])))

    original = Image.open
    plugin = ModuleType("pillow_heif")
    plugin.register_heif_opener = register  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)  # as if it were not installed
    imagefile.read_picture(saved("PNG"), "a file")
    assert calls == []
    np.testing.assert_array_equal(imagefile.read_picture(b"FAKE" + saved("PNG"), "a file").pixels, RGB)
    assert calls == ["registered"]


def test_without_plug_ins_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in imagefile.PLUGINS:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedImage, match="HEIC needs pillow-heif, JPEG XL needs pillow-jxl-plugin"):
        imagefile.read_picture(b"\0\0\0\x18ftypheic", "a file")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic(orientation: int) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    image = np.repeat(np.repeat(RGB, 16, axis=0), 16, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, "HEIF", quality=90, exif=exif(orientation).tobytes(), icc_profile=ICC, chroma=444
    )
    found = imagefile.read_picture(buffer.getvalue(), "a file")
    expected = UPRIGHT[orientation](image)
    assert np.abs(found.pixels[8::16, 8::16].astype(int) - expected[8::16, 8::16]).mean() < 20
    check_exif(found.metadata.exif)


def test_jpeg_xl_turns_pixels_itself() -> None:
    """EXIF's orientation means nothing in JPEG XL; its own is applied by the decoder."""
    pytest.importorskip("pillow_jxl")
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JXL", lossless=True, exif=exif(6).tobytes())
    found = imagefile.read_picture(buffer.getvalue(), "a file")
    np.testing.assert_array_equal(found.pixels, RGB)
    check_exif(found.metadata.exif)
