"""Evaluation: real files, means, equal rate, matched bytes, plots and page."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from cwic import metrics  # noqa: E402
from cwic_lab.evaluate import codecs, rd  # noqa: E402


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
    for name in ("rd-ssim.svg", "rd-psnr.svg", "pictures/a-autoencoder-small-0.png"):
        assert name in page and (out / name).stat().st_size > 500
    assert "autoencoder-small" in text and "against jpeg2000" in text


def test_measured_quality_is_of_the_decoded_file(tmp_path):
    image = picture(176, 168, 3)
    codec = codecs.Jpeg()
    row = rd.measure(codec, 50, "x", image, tmp_path)
    decoded = codec.decode((tmp_path / "x-jpeg").read_bytes())
    assert row["psnr"] == metrics.psnr(image, decoded) and row["ms_ssim"] == metrics.ms_ssim(image, decoded)
    assert row["bytes"] == len(codec.encode(image, 50))


@pytest.mark.parametrize("codec", [codecs.Jpeg(), codecs.Jpeg2000()])
def test_matched_bytes_are_as_many_as_fit(codec):
    image = picture(128, 128, 1)
    data, setting = codecs.match_bytes(codec, image, 3000)
    assert 2000 < len(data) <= 3000
    if codec.name == "jpeg":
        assert len(codec.encode(image, setting + 1)) > 3000


def test_equal_rate_interpolates_in_log_rate():
    def mean(codec, bpp, value):
        return {"codec": codec, "bpp": bpp, "psnr": value, "ssim": value / 100, "ms_ssim": value / 50}

    means = [mean("jpeg", 0.1, 20.0), mean("jpeg", 0.4, 30.0), mean("ours", 0.2, 26.0), mean("theirs", 0.05, 1.0)]
    rows = rd.at_equal_rate(means)
    assert rows[0]["psnr_there"] == pytest.approx(25.0) and rows[0]["psnr"] == 26.0
    assert rows[1]["psnr_there"] is None  # below JPEG's range: nothing is claimed


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
