"""The plots: limits from the data, one colour for one codec, files that a paper can take."""

import re

import pytest

pytest.importorskip("matplotlib")

from cwic_lab.evaluate import plots


def mean(codec, bpp, quality):
    return {"codec": codec, "bpp": bpp, "psnr": 20 + 10 * quality, "ssim": quality, "ms_ssim": 1 - (1 - quality) ** 2}


MEANS = [mean("jpeg", bpp, quality) for bpp, quality in ((0.05, 0.3), (0.2, 0.6), (0.6, 0.8), (4.0, 0.98))]
MEANS += [mean("ours", bpp, quality) for bpp, quality in ((0.15, 0.7), (0.5, 0.85))]
MEANS += [mean("li2018-0.12-small", 0.14, 0.65), mean("li2018-0.30-small", 0.3, 0.7)]
PUBLISHED = {"set/vtm": {"bpp": [0.1, 0.3, 0.9], "psnr": [25.0, 28.0, 32.0]}}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.12, 0.3, 0.6], (0.096, 0.69, False)),
        ([0.1, 0.3, 1.5], (0.08, 1.725, True)),
        ([0.003, 5.0], (0.05, 2.0, True)),
        ([0.3], (0.24, 0.5, False)),
        ([3.0, 9.0], (2.4, 3.6, False)),  # all beyond what is usual: the lowest is still seen
    ],
)
def test_the_rates_shown_are_those_of_the_data(rates, expected):
    low, high, logarithmic = plots.rate_limits(rates)
    assert (low, high) == pytest.approx(expected[:2]) and logarithmic == expected[2]
    assert low < max(rates) and low < high


def test_every_plot_is_there_in_three_kinds_and_in_the_same_colours(tmp_path):
    reference = {"bpp": 0.4, "psnr": 28.0, "ssim": 0.8, "ms_ssim": 0.95}
    plots.draw(tmp_path, MEANS, PUBLISHED, reference)
    assert {path.stem for path in tmp_path.iterdir()} == {"rd-psnr", "rd-ssim", "rd-ms_ssim", "rd-ms_ssim_db"}
    for name in plots.PLOTS:
        pdf, svg, png = ((tmp_path / f"{name}.{kind}").read_bytes() for kind in ("pdf", "svg", "png"))
        assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf and png.startswith(b"\x89PNG")
        width = re.search(rb'width="([\d.]+)pt"', svg)
        assert width and float(width[1]) == pytest.approx(72 * plots.COLUMN_INCHES)
        colours = {colour.decode().upper() for colour in re.findall(rb"#[0-9a-f]{6}", svg)}
        assert set(plots.BUNDLE_COLOURS[:2]) <= colours  # li2018, joined to one, and ours
        assert plots.BUNDLE_COLOURS[2] not in colours


def test_qualities_that_no_picture_has_leave_an_empty_plot(tmp_path):
    plots.draw(tmp_path, [mean("jpeg", 0.2, 0.5) | {"ms_ssim": float("nan")}], {}, None)
    assert (tmp_path / "rd-ms_ssim_db.png").stat().st_size > 500


def test_the_authors_point_is_within_every_plot(tmp_path, monkeypatch):
    reference = {"bpp": 0.8, "psnr": 45.0, "ssim": 0.995, "ms_ssim": 0.9995}
    seen = []
    monkeypatch.setattr(plots.plt, "close", lambda figure: seen.append(figure.axes[0]))
    plots.draw(tmp_path, MEANS, {}, reference)
    for axes, plot in zip(seen, plots.PLOTS.values(), strict=True):
        assert axes.get_xlim()[0] < reference["bpp"] < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < plot.drawn(reference[plot.key]) < axes.get_ylim()[1]
