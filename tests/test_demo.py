"""`cwic demo`: the table, the two files, and JPEG at equal bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwic import bundle, cli, codec, demo

BUNDLES = Path(__file__).parent / "data" / "bundles"


@pytest.fixture(params=["tiny-li2018", "tiny-cwic"])
def tiny_bundles(request, monkeypatch):
    monkeypatch.setattr(bundle, "PACKAGE_MODELS", BUNDLES)
    monkeypatch.setattr(bundle, "DEFAULT_MODEL", request.param)


def texture(height, width):
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def jpeg_bytes(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True)
    return len(buffer.getvalue())


def test_demo_on_the_photograph_of_the_package(tiny_bundles, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 0
    table = capsys.readouterr().out
    assert "512 x 512" in table and "tiny-li2018" in table and "JPEG quality" in table
    assert "tiny-autoencoder" not in table  # it has no map
    assert all(f"tiny-cwic quality {quality}" in table for quality in demo.QUALITIES)
    data = Path("cwic-demo.cwic").read_bytes()
    assert f" {len(data)} " in table
    with Image.open("cwic-demo.png") as sheet:
        assert sheet.width >= 3 * 512 and sheet.height > 512
        shown = np.asarray(sheet)
    decoded = codec.decode(data)
    top = shown.shape[0] - 512
    left = 512 + demo.GAP
    np.testing.assert_array_equal(shown[top:, left : left + 512], decoded)
    assert (shown[:top, left : left + 512] == 0).any()  # a caption


def test_demo_on_a_small_grey_photo(tiny_bundles, tmp_path, capsys):
    photo = tmp_path / "small.png"
    Image.fromarray(texture(9, 20)[:, :, 0]).save(photo)
    for name in ("cwic-demo.png", "cwic-demo.cwic"):  # its own two are overwritten
        (tmp_path / name).write_bytes(b"of an earlier demo")
    demo.run(photo, tmp_path)
    assert "20 x 9" in capsys.readouterr().out
    with Image.open(tmp_path / "cwic-demo.png") as sheet:
        assert sheet.width >= 3 * demo.SMALLEST_WIDTH  # enlarged: room for the captions
    assert codec.inspect((tmp_path / "cwic-demo.cwic").read_bytes()).colours == 1


def test_jpeg_at_equal_bytes_is_the_largest_that_fits():
    image = texture(40, 56)
    limit = jpeg_bytes(image, 37) + 3
    picture, n_bytes, quality = demo.largest_jpeg(image, limit)
    assert n_bytes == jpeg_bytes(image, quality) <= limit < jpeg_bytes(image, quality + 1)
    assert picture.shape == image.shape


def test_jpeg_that_cannot_be_as_small_is_of_quality_1_and_said_to_be_larger(tiny_bundles, tmp_path, capsys):
    image = texture(40, 56)
    assert demo.largest_jpeg(image, 10)[1:] == (jpeg_bytes(image, 1), 1)
    photo = tmp_path / "flat.png"
    Image.fromarray(np.full((8, 8, 3), 120, np.uint8)).save(photo)
    demo.run(photo, tmp_path)
    assert "yet larger" in capsys.readouterr().out


def test_without_the_default_model_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle, "PACKAGE_MODELS", tmp_path)
    assert cli.main(["demo"]) == 1
    assert "ModelNotFound" in capsys.readouterr().err


def test_the_photograph_of_the_package_is_small_and_attributed():
    assert demo.PHOTO.stat().st_size <= 800_000
    assert "NASA" in demo.PHOTO.with_name("README.md").read_text(encoding="utf-8")
