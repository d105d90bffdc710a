"""BD-rate on curves with a known answer, and against the published curves where they are at hand."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from cwic.metrics import similarity_db  # noqa: E402
from cwic_lab.evaluate.anchors import read_anchors  # noqa: E402
from cwic_lab.evaluate.bdrate import Curve, bd_rate, bd_table, bd_text  # noqa: E402

RATES = [0.1, 0.2, 0.4, 0.9, 1.6]
DECIBELS = [26.0, 28.5, 31.0, 34.0, 37.0]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.25, 3.0])
def test_files_larger_by_a_factor_give_that_factor(factor):
    larger = Curve([factor * rate for rate in RATES], DECIBELS)
    assert bd_rate(larger, Curve(RATES, DECIBELS)) == pytest.approx(factor - 1)
    assert bd_rate(Curve(RATES, DECIBELS), larger) == pytest.approx(1 / factor - 1)


def test_a_shift_in_quality_of_straight_curves():
    # log2(rate) = quality / 3: a curve 1 dB lower needs 2^(1/3) times the rate everywhere.
    quality = np.linspace(20, 40, 9)
    rates = 2 ** (quality / 3)
    assert bd_rate(Curve(rates, quality - 1), Curve(rates, quality)) == pytest.approx(2 ** (1 / 3) - 1)


def test_only_the_common_range_counts():
    left, right = Curve([1, 2, 4], [20, 25, 30]), Curve([8, 16, 32], [30.5, 35, 40])
    assert math.isnan(bd_rate(left, right))
    half = Curve([2.5, 4.5], [25, 30])  # beside the upper half of `left` alone
    expected = math.exp((math.log(2.5 / 2) + math.log(4.5 / 4)) / 2) - 1
    assert bd_rate(half, Curve([2, 4], [25, 30])) == pytest.approx(expected)
    assert bd_rate(half, left) == pytest.approx(expected, abs=0.01)


def test_points_in_any_order_and_a_dearer_point_of_lower_quality():
    shuffled = Curve([0.4, 0.1, 1.6, 0.2, 0.9], [31.0, 26.0, 37.0, 28.5, 34.0])
    worse = Curve([*RATES, 1.0], [*DECIBELS, 33.0])  # 1.0 gives less than 0.9: it is no point of the curve
    for curve in (shuffled, worse):
        assert bd_rate(curve, Curve(RATES, DECIBELS)) == pytest.approx(0)
    assert math.isnan(bd_rate(Curve([1.0], [30.0]), Curve(RATES, DECIBELS)))


def test_similarities_in_db():
    np.testing.assert_allclose(similarity_db([0.9, 0.99, 1.0]), [10, 20, 60])


def test_the_table_joins_measured_and_published_curves():
    means = [
        {"codec": "ours", "bpp": rate / 2, "psnr": db, "ssim": 0.9, "ms_ssim": 1 - 10 ** (-db / 20)}
        for rate, db in zip(RATES, DECIBELS, strict=True)
    ]
    means.append({"codec": "one-rate", "bpp": 0.3, "psnr": 30.0, "ssim": 0.9, "ms_ssim": 0.95})
    published = {"vtm": {"bpp": RATES, "psnr": DECIBELS}}
    rows = {row["codec"]: row for row in bd_table(means, published, "vtm", published)}
    assert set(rows) == {"ours", "vtm"}
    assert rows["ours"]["psnr"] == pytest.approx(-0.5) and rows["vtm"]["psnr"] == pytest.approx(0)
    assert math.isnan(rows["ours"]["ms_ssim"])  # the anchor has none
    text = bd_text(list(rows.values()), "vtm")
    assert "-50.0 %" in text and "BD-rate against vtm" in text
    with pytest.raises(ValueError, match="no curve 'hm' to compare with; there are ours, vtm"):
        bd_table(means, published, "hm", {})


def test_anchors_are_read_from_a_file_or_a_folder(tmp_path):
    content = {
        "good": {"bpp": [0.1, 0.2], "psnr": [30, 32.5], "note": "x"},
        "uneven": {"bpp": [0.1, 0.2], "psnr": [30]},
        "none": {"psnr": [1]},
        "text": "x",
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    assert read_anchors(tmp_path / "set.json") == {"good": {"bpp": [0.1, 0.2], "psnr": [30, 32.5]}}
    assert list(read_anchors(tmp_path)) == ["set/good"]
    (tmp_path / "set.json").write_text("[")
    with pytest.raises(ValueError, match=r"set\.json is no JSON"):
        read_anchors(tmp_path)
    (tmp_path / "set.json").write_text("{}")
    with pytest.raises(ValueError, match="no curve found"):
        read_anchors(tmp_path)


# Of public curves on Kodak by PSNR against VTM; a folder that holds them is named by CWIC_ANCHORS.
@pytest.mark.skipif("CWIC_ANCHORS" not in os.environ, reason="CWIC_ANCHORS names no folder of published curves")
@pytest.mark.parametrize(
    ("name", "percent"),
    [("paper-elic2022_mse", -7.1), ("compressai-cheng2020-anchor_mse_cuda", 3.6), ("bpg_444_x265_ycbcr", 22.0)],
)
def test_published_figures_are_found_again(name, percent):
    curves = read_anchors(Path(os.environ["CWIC_ANCHORS"]) / "kodak_curves.json")
    ours, vtm = (Curve(curves[key]["bpp"], curves[key]["psnr"]) for key in (name, "vtm"))
    assert 100 * bd_rate(ours, vtm) == pytest.approx(percent, abs=0.3)
