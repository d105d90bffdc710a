"""Pictures unlike photographs that WebP shows far better at the same bytes are kept as WebP; photographs are not."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import cwic
from cwic import codec, container, demo, errors, fallback, imagefile, lossless, metrics
from cwic.cli import main
from cwic.container import Chunk

SIZE = 192


def page(height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Dark text on white as a JPEG leaves it, which no lossless file is small for: uint8 [height,width,3]."""
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    text = "Networks are made for photographs. " * (width // 200 + 1)
    for line in range(height // 15 + 1):
        pen.text((3, 15 * line), text, fill=(20, 20, 60), font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return np.array(Image.open(buffer))


def encode(image: np.ndarray, **options: object) -> bytes:
    return cwic.encode(image, **{"model": "cwic-psnr", **options})  # type: ignore[arg-type]


def chunks(data: bytes) -> set[str]:
    return set(cwic.inspect(data).chunks)


@pytest.mark.parametrize("model", ["cwic-psnr", "cwic-ssim"])
@pytest.mark.parametrize("grey", [False, True], ids=["RGB", "grey"])
def test_a_page_is_far_better_in_no_more_bytes(model: str, grey: bool) -> None:
    image = page()[:, :, 1].copy() if grey else page()
    data = encode(image, model=model, quality=60)
    network = encode(image, model=model, quality=60, importance="uniform")
    assert chunks(data) == {"WEBP"} and chunks(network) == {"CODE"}
    assert not cwic.inspect(data).has_symbols and cwic.inspect(network).has_symbols
    assert len(data) <= len(network)
    assert cwic.decode(data).shape == image.shape
    assert metrics.psnr(image, cwic.decode(data)) > metrics.psnr(image, cwic.decode(network)) + fallback.MARGIN


@pytest.mark.parametrize(
    ("target", "measure"),
    [({"psnr": 33.0}, metrics.psnr), ({"ms_ssim": 0.997}, metrics.ms_ssim)], ids=["psnr", "ms_ssim"],
)  # fmt: skip
def test_a_target_is_met_in_fewer_bytes(target: dict[str, float], measure: Callable[..., float]) -> None:
    image = page()
    data, network = encode(image, **target), encode(image, **target, importance="uniform")
    assert chunks(data) == {"WEBP"} and chunks(network) == {"CODE"}
    assert len(data) < len(network)
    assert measure(image, cwic.decode(data)) >= next(iter(target.values()))


def test_a_size_is_kept_to_and_a_target_beyond_the_network_is_met() -> None:
    image = page()
    data = encode(image, size=15_000)
    assert chunks(data) == {"WEBP"} and 14_000 < len(data) <= 15_000
    with pytest.raises(errors.TargetUnreachable):
        encode(image, model="cwic-ssim", psnr=38.0, importance="uniform")
    assert metrics.psnr(image, cwic.decode(encode(image, model="cwic-ssim", psnr=38.0))) >= 38
    with pytest.raises(errors.TargetUnreachable, match="dB cannot be reached"):
        encode(image, psnr=99.0)


def test_photographs_and_what_networks_do_well_keep_them() -> None:
    photograph = imagefile.read_image(demo.PHOTO)[:SIZE, :SIZE].copy()
    assert not fallback.is_sharp(photograph)
    assert not fallback.is_sharp(photograph[:, :, 0].copy())
    assert fallback.is_sharp(page()) and fallback.is_sharp(page()[:, :, 0].copy())
    assert not fallback.is_sharp(page()[:31])  # too small to tell
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    assert fallback.is_sharp(noise) and chunks(encode(noise, quality=30)) == {"CODE"}


def test_likeness_is_psnr_and_ms_ssim_in_decibels() -> None:
    image = page()
    shown = image // 2 + 64
    expected = metrics.psnr(image, shown) - 10 * np.log10(1 - metrics.ms_ssim(image, shown))
    assert fallback.likeness(image, shown) == pytest.approx(expected)
    assert fallback.likeness(image[:160], shown[:160]) == metrics.psnr(image[:160], shown[:160])
    assert fallback.likeness(image, image) == np.inf


def test_a_picture_too_large_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "MOST_PIXELS", SIZE**2 - 1)
    assert chunks(encode(page(), quality=60)) == {"CODE"}


def test_alpha_goes_beside() -> None:
    image = np.dstack([page(), np.full((SIZE, SIZE), 255, np.uint8)])
    image[:40, :40, 3] = 9
    data = encode(image, quality=60)
    assert chunks(data) == {"WEBP", "ALPH"}
    np.testing.assert_array_equal(cwic.decode(data)[:, :, 3], image[:, :, 3])


def test_it_needs_no_bundle_and_has_no_symbols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = encode(page(), quality=60)
    header, payloads = container.unpack(data)
    other = container.pack(
        container.Header(**{**vars(header), "model_id": "unheard-of"}), [Chunk("WEBP", payloads["WEBP"])]
    )
    whole = cwic.decode(other)
    np.testing.assert_array_equal(cwic.decode(other, region=(50, 20, 30, 40)), whole[20:60, 50:80])
    for ask in (codec.decode_symbols, codec.importance_map, codec.bits_per_block):
        with pytest.raises(errors.ModelError, match="holds a WebP stream"):
            ask(data)
    file = tmp_path / "a.cwic"
    file.write_bytes(data)
    assert main(["map", str(file), "-o", str(tmp_path / "map.png")]) == 1
    assert "holds a WebP stream" in capsys.readouterr().err and not (tmp_path / "map.png").exists()


def stream(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"RIFF", stream(page(40, 31)), stream(page(3000, 3000)), stream(page(40, 30))[:-30],
        stream(np.full((40, 30, 4), 7, np.uint8)), lossless.stream(page(40, 30)),
        stream(page(40, 30), save_all=True, append_images=[Image.new("RGB", (30, 40))]),
        stream(page(40, 30)) + b"hidden", stream(page(40, 30), icc_profile=b"hidden"),
    ],
    ids=["empty", "cut", "other size", "bomb", "cut short", "alpha", "lossless", "animation", "more", "extended"],
)  # fmt: skip
def test_a_stream_of_another_picture_is_refused(payload: bytes) -> None:
    header = container.Header(30, 40, 3, "cwic-psnr", bytes(8), zlib.crc32(payload))
    with pytest.raises(errors.Corrupt):
        cwic.decode(container.pack(header, [Chunk("WEBP", payload)]))


def test_every_flipped_byte_is_named() -> None:
    data = encode(page(96, 96), quality=60)
    assert chunks(data) == {"WEBP"}
    for position in range(0, len(data), 13):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        with pytest.raises(errors.FormatError):
            cwic.decode(bytes(damaged))
