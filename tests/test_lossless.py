"""Pictures that are no larger exactly are kept exactly; a stream that is not the picture announced is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cwic
from cwic import codec, container, errors, lossless
from cwic.cli import main
from cwic.container import Chunk

BUNDLES = Path(__file__).parent / "data" / "bundles"
MODEL = "tiny-cwic"


def drawing(height: int, width: int) -> np.ndarray:
    """Black frames on white: uint8 [height,width,3]."""
    image = np.full((height, width, 3), 255, np.uint8)
    for inset in range(0, min(height, width) // 2, 7):
        image[inset : height - inset, [inset, -1 - inset]] = 0
        image[[inset, -1 - inset], inset : width - inset] = 0
    return image


def photograph(height: int, width: int) -> np.ndarray:
    """Noise on a slope: what no lossless coder makes small."""
    slope = np.arange(width)[None, :, None] + np.random.default_rng(0).integers(0, 60, (height, width, 3))
    return slope.clip(0, 255).astype(np.uint8)


def encode(image: np.ndarray, **options: object) -> bytes:
    return cwic.encode(image, model=MODEL, models_dir=BUNDLES, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("grey", [False, True], ids=["RGB", "grey"])
@pytest.mark.parametrize("target", [{}, {"psnr": 90.0}, {"ms_ssim": 0.99999}, {"size": 600}, {"bpp": 0.4}])
def test_a_drawing_comes_back_exactly_and_is_smaller_than_any_lossy_file(grey: bool, target: dict[str, float]) -> None:
    image = drawing(170, 200)[:, :, 0].copy() if grey else drawing(170, 200)
    data = encode(image, **target)
    info = cwic.inspect(data)
    assert info.is_lossless and set(info.chunks) == {"PIXL"}
    np.testing.assert_array_equal(cwic.decode(data, models_dir=BUNDLES), image)
    assert len(data) <= {"size": 600, "bpp": 0.4 * 170 * 200 / 8}.get(next(iter(target), ""), 1000)


def test_a_photograph_is_not() -> None:
    image = photograph(170, 200)
    assert not cwic.inspect(encode(image, quality=100)).is_lossless
    with pytest.raises(errors.TargetUnreachable, match="dB cannot be reached"):
        encode(image, psnr=90.0)


def test_it_needs_no_bundle_to_decode() -> None:
    image = drawing(40, 30)
    header, chunks = container.unpack(encode(image))
    other = container.pack(container.Header(**{**vars(header), "model_id": "unheard-of"}), _as_chunks(chunks))
    np.testing.assert_array_equal(cwic.decode(other), image)


def test_it_has_no_symbols_and_no_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = encode(drawing(40, 30))
    for ask in (codec.decode_symbols, codec.importance_map, codec.bits_per_block):
        with pytest.raises(errors.ModelError, match="holds the pixels themselves"):
            ask(data, models_dir=BUNDLES)
    file = tmp_path / "a.cwic"
    file.write_bytes(data)
    assert main(["map", str(file), "-o", str(tmp_path / "map.png"), "--models", str(BUNDLES)]) == 1
    assert "holds the pixels themselves" in capsys.readouterr().err and not (tmp_path / "map.png").exists()


def test_every_flipped_byte_is_named() -> None:
    data = encode(drawing(40, 30))
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        with pytest.raises(errors.FormatError):
            cwic.decode(bytes(damaged), models_dir=BUNDLES)


def stream(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", **{"lossless": True, **options})
    return buffer.getvalue()


def _longer(riff: bytes, chunk: bytes) -> bytes:
    """A RIFF file with one chunk more."""
    return riff[:4] + (len(riff) - 8 + len(chunk)).to_bytes(4, "little") + riff[8:] + chunk


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"RIFF", stream(drawing(40, 31)), stream(drawing(3000, 3000)), stream(drawing(40, 30))[:-30],
        stream(np.full((40, 30, 4), 7, np.uint8)), stream(drawing(40, 30), lossless=False, quality=5),
        stream(drawing(40, 30), save_all=True, append_images=[Image.new("RGB", (30, 40))]),
        stream(drawing(40, 30)) + b"hidden", stream(drawing(40, 30), icc_profile=b"hidden"),
        _longer(stream(drawing(40, 30)), b"NOTE\2\0\0\0hi"),
    ],
    ids=["empty", "cut", "other size", "bomb", "cut short", "alpha", "other pixels", "animation", "more after the end",
         "extended", "another chunk"],
)  # fmt: skip
def test_a_stream_of_another_picture_is_refused(payload: bytes) -> None:
    header, _ = container.unpack(encode(drawing(40, 30)))
    with pytest.raises(errors.Corrupt):
        cwic.decode(container.pack(header, [Chunk("PIXL", payload)]), models_dir=BUNDLES)


def test_pixels_beside_a_code_are_refused() -> None:
    header, chunks = container.unpack(encode(drawing(40, 30)))
    both = [*_as_chunks(chunks), Chunk("CODE", b"1234")]
    with pytest.raises(errors.Corrupt, match="beside PIXL"):
        cwic.decode(container.pack(header, both), models_dir=BUNDLES)


def test_a_sample_tells_photographs_apart() -> None:
    tall = photograph(5000, 700)
    assert lossless.encode(tall, tall.size / 8) is None
    assert lossless.encode(drawing(20_000, 3), 10**6) is None  # longer than WebP allows
    found = lossless.encode(drawing(1000, 1500), 10**4)
    assert found is not None
    np.testing.assert_array_equal(lossless.decode(found, 1000, 1500, 3, "PIXL"), drawing(1000, 1500))


def _as_chunks(payloads: dict[str, bytes]) -> list[Chunk]:
    return [Chunk(kind, payload) for kind, payload in payloads.items()]


def test_what_would_take_gigabytes_of_memory_is_left_to_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    assert lossless.encode(image, 1000) is not None
    monkeypatch.setattr(lossless, "MOST_PIXELS", 1999)
    assert lossless.encode(image, 1000) is None


def test_a_file_of_too_many_pixels_is_refused_before_webp_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = cwic.encode(np.zeros((40, 50, 3), np.uint8), model="tiny-cwic", models_dir=BUNDLES)
    monkeypatch.setattr(container, "MAX_UNCUT_PIXELS", 1999)
    with pytest.raises(errors.LimitExceeded, match="50 x 40 pixels in one piece; at most 1999"):
        cwic.decode(data)
