"""Evaluation: real files, means, equal rate, matched bytes, plots and page."""

import csv
import io
import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import cwic  # noqa: E402
from cwic import metrics  # noqa: E402
from cwic_lab.evaluate import codecs, plots, rd  # noqa: E402


def picture(height, width, seed):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    large = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(large + rng.normal(0, 6, large.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name, size in (("a", (168, 200)), ("b", (200, 168))):
        Image.fromarray(picture(*size, seed=len(name))).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"not an image")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


class Few:
    """A classical codec cut down to two settings, to keep the test quick."""

    def __init__(self, codec, settings):
        self.name, self.settings = codec.name, settings
        self.encode, self.decode = codec.encode, codec.decode


def few(names, models_dir=None):
    cut = {"jpeg": (10, 80), "jpeg2000": (0.3, 1.5)}
    return [Few(c, cut[c.name]) if c.name in cut else c for c in codecs.find_codecs(names, models_dir)]


def test_rows_plots_and_page(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rd, "find_codecs", few)
    out = tmp_path / "report"
    text = rd.evaluate(folder, ["autoencoder-small", "jpeg", "jpeg2000"], out, pictures=1)
    with (out / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5 and {row["image"] for row in rows} == {"a", "b"}
    last = next(row for row in rows if row["codec"] == "jpeg2000" and row["image"] == "b")
    on_disk = (out / "files" / "b-jpeg2000").stat().st_size
    assert on_disk in {int(row["bytes"]) for row in rows if row["codec"] == "jpeg2000"}
    assert float(last["bpp"]) == pytest.approx(8 * int(last["bytes"]) / (168 * 200))
    means = json.loads((out / "rows.json").read_text())["means"]
    jpeg = [mean for mean in means if mean["codec"] == "jpeg"]
    assert jpeg[0]["ssim"] < jpeg[1]["ssim"] and jpeg[0]["images"] == 2
    page = (out / "index.html").read_text()
    for name in ("rd-ssim.svg", "rd-psnr.pdf", "pictures/a/original.png", "pictures/a/1/autoencoder-small.png"):
        assert name in page and (out / name).stat().st_size > 500
    assert "autoencoder-small" in text and "against jpeg2000" in text and "image by image" in text
    assert "jpeg at " in page and "MS-SSIM</tr>" in page  # the table of one image's files


def test_measured_quality_is_of_the_decoded_file(tmp_path):
    image = picture(176, 168, 3)
    codec = codecs.Jpeg()
    row = rd.measure(codec, 50, "x", image, tmp_path)
    decoded = codec.decode((tmp_path / "x-jpeg").read_bytes())
    assert row["psnr"] == metrics.psnr(image, decoded) and row["ms_ssim"] == metrics.ms_ssim(image, decoded)
    assert row["bytes"] == len(codec.encode(image, 50))


@pytest.mark.parametrize("colours", [3, 1])
def test_matched_bytes_are_as_many_as_fit(colours):
    image = picture(128, 128, 1) if colours == 3 else picture(128, 128, 1)[..., 0]
    data, quality = codecs.match_bytes(codecs.Jpeg(), image, 3000)
    assert len(data) <= 3000 < len(codecs.Jpeg().encode(image, quality + 1))
    for n_bytes in (1000, 3000, 5000):
        data, rate = codecs.match_bytes(codecs.Jpeg2000(), image, n_bytes)
        assert len(data) <= n_bytes
        # A picture of few code blocks grows in steps: what counts is that the next step is too large.
        assert len(data) >= 0.999 * n_bytes or len(codecs.Jpeg2000().encode(image, 1.02 * rate)) > n_bytes
    assert codecs.Jpeg2000().decode(data).shape == image.shape


@pytest.mark.parametrize("codec", [codecs.Jpeg(), codecs.Jpeg2000()])
def test_where_nothing_fits_the_smallest_file_comes(codec):
    image = picture(64, 64, 1)
    data, _ = codecs.match_bytes(codec, image, 20)
    assert 20 < len(data) <= len(codec.encode(image, codec.settings[0]))


def test_classical_files_are_what_they_are_called():
    image = picture(128, 128, 1)
    with Image.open(io.BytesIO(codecs.Jpeg().encode(image, 50))) as jpeg:
        assert jpeg.format == "JPEG" and jpeg.layer[0][1:3] == (2, 2) and jpeg.layer[1][1:3] == (1, 1)  # 4:2:0
    coded = codecs.Jpeg2000().encode(image, 1.0)
    style = coded.index(b"\xff\x52") + 4  # COD marker, length; then Scod, order, layers (2), transform (1), ...
    assert int.from_bytes(coded[style + 2 : style + 4], "big") == 1  # one layer
    assert coded[style + 4] == 1  # colours decorrelated: without it JPEG 2000 would lose 4 dB
    assert coded[style + 9] == 0  # the irreversible 9/7 wavelet
    assert abs(8 * len(coded) / 128**2 - 1.0) < 0.1


def test_equal_rate_interpolates_in_log_rate():
    def mean(codec, bpp, value):
        return {"codec": codec, "bpp": bpp, "psnr": value, "ssim": value / 100, "ms_ssim": value / 50}

    means = [mean("jpeg", 0.1, 20.0), mean("jpeg", 0.4, 30.0), mean("ours", 0.2, 26.0), mean("theirs", 0.05, 1.0)]
    rows = rd.at_equal_rate(means)
    assert rows[0]["psnr_there"] == pytest.approx(25.0) and rows[0]["psnr"] == 26.0
    assert rows[0]["psnr_gain"] == pytest.approx(1.0)
    assert rows[1]["psnr_there"] is None and rows[1]["psnr_gain"] is None  # below JPEG's range: nothing is claimed


def test_image_by_image_holds_each_file_against_its_own_image():
    def row(codec, image, bpp, value):
        return {"codec": codec, "image": image, "bpp": bpp, "psnr": value, "ssim": value / 100, "ms_ssim": value / 50}

    # JPEG at equal rates for both; ours shares its bits. Only "easy" and "hard" lie inside JPEG's rates.
    rows = [row("ours", "easy", 0.2, 46.0), row("ours", "hard", 0.4, 24.0), row("ours", "out", 0.01, 9.0)]
    rows += [row("jpeg", image, bpp, value) for image, low, high in (("easy", 40, 50), ("hard", 20, 25), ("out", 1, 2))
             for bpp, value in ((0.4, high), (0.1, low))]  # fmt: skip
    (result,) = rd.image_by_image(rows)
    assert result["images"] == 2 and result["ssim_wins"] == 1  # 46 over 45, 24 under 25
    assert result["bpp"] == pytest.approx(0.3)
    assert result["psnr"] == pytest.approx(35.0) and result["psnr_there"] == pytest.approx(35.0)
    (nothing,) = rd.image_by_image([r for r in rows if r["image"] == "out"])
    assert nothing["images"] == 0 and nothing["ssim_there"] is None and nothing["ssim_gain"] is None


def test_mean_of_psnr_and_psnr_of_mean_differ():
    shared = dict.fromkeys(("bytes", "bpp", "ssim", "ms_ssim", "encode_s", "decode_s"), 1.0)
    rows = [
        {"codec": "c", "setting": 1, "mse": mse, "psnr": float(10 * np.log10(255**2 / mse)), **shared}
        for mse in (1.0, 100.0)
    ]
    (mean,) = rd.set_means(rows)
    assert mean["psnr"] == pytest.approx(38.13, abs=0.01)
    assert mean["psnr_of_mean_mse"] == pytest.approx(10 * np.log10(255**2 / 50.5))


def test_the_authors_crop_turns_with_the_picture():
    assert rd.centre(np.zeros((512, 768, 3), np.uint8), (752, 496)).shape == (496, 752, 3)
    assert rd.centre(np.zeros((768, 512, 3), np.uint8), (752, 496)).shape == (752, 496, 3)
    with pytest.raises(ValueError, match="smaller than the crop"):
        rd.centre(np.zeros((100, 100, 3), np.uint8), (752, 496))


def test_unknown_codec_and_empty_folder_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="'webm'; available: .*jpeg2000"):
        rd.evaluate(folder, ["webm"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no readable image"):
        rd.evaluate(tmp_path / "empty", ["jpeg"], tmp_path / "out")


def test_images_of_one_stem_both_count_and_broken_ones_are_reported(folder, caplog):
    Image.fromarray(picture(80, 80, 5)).save(folder / "a.jpg")
    with caplog.at_level(logging.WARNING):
        images = rd.read_images(folder, None)
    assert list(images) == ["a", "a.png", "b"] and images["a"].shape == (80, 80, 3)
    assert "broken.png" in caplog.text and "notes.txt" not in caplog.text


def test_small_grey_pictures_leave_valid_json_and_a_page(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rd, "find_codecs", few)
    monkeypatch.setattr(plots, "draw", lambda *_: None)
    shutil.rmtree(folder)
    folder.mkdir()
    Image.fromarray(picture(40, 48, 1)[..., 0]).save(folder / 'g"1#.png')
    rd.evaluate(folder, ["autoencoder-small", "jpeg"], tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "rows.json").read_text(), parse_constant=pytest.fail)["rows"]
    assert rows[0]["ms_ssim"] is None and rows[0]["ssim"] > 0  # too small for five scales
    page = (tmp_path / "out" / "index.html").read_text()
    assert "pictures/g%221%23/1/autoencoder-small.png" in page and 'g"1#' not in page


def test_the_authors_point_is_shown_on_their_crops_only(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rd, "find_codecs", few)
    monkeypatch.setattr(plots, "draw", lambda *_: None)
    monkeypatch.setattr(rd, "AUTHORS_CROP", (192, 164))
    for crop, expected in (((192, 164), True), ((168, 168), False)):
        rd.evaluate(folder, ["jpeg"], tmp_path / "out", crop=crop, pictures=0)
        assert ("33.47 dB" in (tmp_path / "out" / "index.html").read_text()) == expected


def test_an_effort_is_part_of_a_codecs_name():
    (found,) = codecs.find_codecs(["cwic-psnr@3"])
    assert (found.name, found.model, found.effort) == ("cwic-psnr@3", "cwic-psnr", 3)
    assert {c.name for c in codecs.find_codecs(["*@10"])} == {"cwic-psnr@10", "cwic-ssim@10"}
    image = np.random.default_rng(0).integers(90, 160, (40, 70, 3)).astype(np.uint8)
    assert found.encode(image, 20) == cwic.encode(image, model="cwic-psnr", quality=20, effort=3)


@pytest.mark.parametrize("name", ["jpeg@3", "li2018-0.30-small@3", "cwic-psnr@", "cwic-psnr@x", "cwic-psnr@-1"])
def test_what_has_no_effort_is_named(name):
    with pytest.raises(ValueError, match=f"codec '{name}'; available"):
        codecs.find_codecs([name])
