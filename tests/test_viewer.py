"""The page and its viewer: files of equal size, figures as measured, every picture there, HTML that parses."""

import dataclasses
import html.parser
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import cwic
from cwic import imagefile, metrics
from cwic_lab.evaluate import codecs, rd, viewer

BUNDLES = Path(__file__).parent / "data" / "bundles"
OPTIONAL_END = {"html", "p", "tr", "td", "th"}
VOID = {"meta", "img", "input"}


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    large = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(large + rng.normal(0, 6, large.shape), 0, 255).astype(np.uint8)


def find(*names):
    """Codecs with the tiny bundles, that of every rate at three qualities."""
    found = codecs.find_codecs(names, BUNDLES)
    return [dataclasses.replace(c, settings=(0.0, 50.0, 100.0)) if c.name == "tiny-cwic" else c for c in found]


class Page(html.parser.HTMLParser):
    """Checks that elements nest; collects what is referred to, and the viewers' JSON."""

    def __init__(self, text):
        super().__init__()
        self.open, self.refs, self.told, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.refs += [value for key, value in attributes if key in ("src", "href")]
        if tag not in VOID | OPTIONAL_END:
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in OPTIONAL_END:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == ("script", {"type": "application/json"}):
            self.told.append(json.loads(data))
        else:
            self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """(folder of the report, its page, the image) of one image through all kinds of codec."""
    folder = tmp_path_factory.mktemp("images")
    image = picture(168, 176)
    Image.fromarray(image).save(folder / "a <b>&#1.png")
    out = folder / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rd, "find_codecs", lambda names, _: find(*names))
        rd.evaluate(folder, ["tiny-cwic", "tiny-li2018", "jpeg", "webp"], out, models_dir=BUNDLES)
    return out, Page((out / "index.html").read_text(encoding="utf-8")), image


def test_every_codec_of_a_rate_can_be_chosen_and_its_picture_is_there(report):
    out, page, image = report
    (told,) = page.told
    assert told["name"] == "a <b>&#1" and (told["height"], told["width"]) == image.shape[:2]
    anchors = [rate["files"][0] for rate in told["rates"]]
    assert {file["codec"] for file in anchors} == {"tiny-li2018", "tiny-cwic"}
    sizes = [int(file["cells"][0]) for file in anchors]
    assert sizes == sorted(sizes)
    for rate in told["rates"]:
        names = [file["codec"] for file in rate["files"]]
        assert len(set(names)) == len(names) and {"jpeg", "webp"} <= set(names)
        for file in rate["files"]:
            assert imagefile.read_image(out / unquote(file["src"])).shape == image.shape
    assert (imagefile.read_image(out / unquote(told["original"])) == image).all()


def test_what_the_page_refers_to_exists_beside_it(report):
    out, page, _ = report
    told = page.told[0]
    maps = [file["bits"]["src"] for rate in told["rates"] for file in rate["files"] if file["bits"]]
    refs = [ref for ref in page.refs if ref] + maps
    assert len(maps) >= 2 and {"rd-ms_ssim_db.svg", "rd-psnr.pdf", *maps} <= set(refs)
    for ref in refs:
        assert "//" not in ref and (out / unquote(ref)).stat().st_size > 0, ref


def test_figures_are_those_of_the_pictures_shown(report):
    out, page, image = report
    rates = page.told[0]["rates"]
    for rate in rates:
        for file in rate["files"]:
            shown = imagefile.read_image(out / unquote(file["src"]))
            n_bytes, bpp, *quality = file["cells"]
            assert float(bpp) == pytest.approx(8 * int(n_bytes) / (168 * 176), abs=5e-5)
            expected = [metrics.psnr(image, shown), metrics.ssim(image, shown), metrics.ms_ssim(image, shown)]
            assert quality == [f"{expected[0]:.2f}", f"{expected[1]:.4f}", f"{expected[2]:.4f}"]
            assert f"{file['label']}: {n_bytes} bytes, {bpp} bpp, PSNR {quality[0]} dB" in page.text
    (fixed,) = (rate["files"][0] for rate in rates if rate["files"][0]["codec"] == "tiny-li2018")
    assert int(fixed["cells"][0]) == len(cwic.encode(image, model="tiny-li2018", models_dir=BUNDLES))


def test_maps_cover_the_picture_and_share_their_colours(report):
    out, page, image = report
    for rate in page.told[0]["rates"]:
        brightest = []
        for file in rate["files"]:
            if not file["codec"].startswith("tiny"):
                assert file["bits"] is None
                continue
            overlay = imagefile.read_image(out / unquote(file["bits"]["src"]))
            stride = file["bits"]["width"] // overlay.shape[1]
            assert stride == (16 if file["codec"] == "tiny-cwic" else 8)
            assert file["bits"]["height"] == stride * overlay.shape[0] >= image.shape[0]
            brightest.append(overlay.reshape(-1, 3).max(axis=0).tolist())
        assert rate["top"] > 0 and [253, 231] in [each[:2] for each in brightest]  # the last colour is used


def test_the_bd_rates_are_on_the_page_under_their_anchors_name(report):
    out, page, _ = report
    assert "BD-rate against jpeg" in page.text
    rows = {row["codec"]: row for row in json.loads((out / "rows.json").read_text())["bd_rate"]}
    assert f"{100 * rows['webp']['psnr']:+.1f} %" in page.text


def test_files_are_no_larger_than_the_anchors_and_little_smaller():
    image = picture(168, 176)
    ours, jpeg, webp = find("tiny-cwic", "jpeg", "webp")
    anchor, *others = viewer.at_equal_rate(image, jpeg, 2, [ours, jpeg, webp])
    assert anchor.codec == "jpeg" and [file.codec for file in others] == ["tiny-cwic", "webp"]
    assert 0.98 * anchor.n_bytes <= others[0].n_bytes <= anchor.n_bytes
    assert others[1].n_bytes == len(webp.encode(image, 1)) > anchor.n_bytes
    assert others[1].label == "webp at 1, its smallest"
    quality = float(others[0].label.removeprefix("tiny-cwic at "))
    again = cwic.encode(image, model="tiny-cwic", quality=quality, models_dir=BUNDLES)
    assert len(again) == pytest.approx(others[0].n_bytes, rel=0.01)  # the label has four digits


def test_a_bundle_that_cannot_meet_the_size_is_left_out():
    image = picture(64, 64)
    ours, fixed, jpeg = find("tiny-cwic", "tiny-li2018", "jpeg")
    assert ours.of_size(image, 30) is None and ours.of_size(image, 10**6) is None and fixed.of_size(image, 500) is None
    smallest = dataclasses.replace(jpeg, settings=(1,))
    assert [file.codec for file in viewer.at_equal_rate(picture(16, 16), smallest, 1, [fixed, smallest])] == ["jpeg"]


def test_rates_come_from_the_bundles_or_from_the_first_codec():
    def means(name, *rates):
        return [{"codec": name, "setting": s, "bpp": r} for s, r in zip((0.0, 50.0, 100.0), rates, strict=True)]

    ours, fixed, jpeg = find("tiny-cwic", "tiny-li2018", "jpeg")
    all_of_them = means("tiny-cwic", 0.14, 0.31, 0.7)
    assert viewer.anchors([ours, jpeg, fixed], all_of_them) == [
        (fixed, fixed.settings[0]), (ours, 0.0), (ours, 50.0), (ours, 100.0),
    ]  # fmt: skip
    assert viewer.anchors([ours], means("tiny-cwic", 2.0, 3.0, 4.0)) == [(ours, 0.0)]  # nearest to every rate
    other = dataclasses.replace(ours, name="second")
    assert {codec.name for codec, _ in viewer.anchors([ours, other], all_of_them)} == {"tiny-cwic"}
    jpeg = dataclasses.replace(jpeg, settings=(0.0, 50.0, 100.0))
    assert viewer.anchors([jpeg], means("jpeg", 0.1, 0.29, 2.0)) == [(jpeg, 0.0), (jpeg, 50.0)]


def test_no_name_ends_the_script():
    told = {"name": "</script><script>alert(1)", "rates": []}
    page = Page(viewer.html(told))
    assert page.told == [told]


def test_the_viewer_needs_nothing_from_elsewhere():
    page = Page(viewer.head())
    assert [ref for ref in page.refs if ref] == []
    assert not re.search(r"https?:|url\(|@import|\bimport\b[^a]|fetch", viewer.head())
