"""The flagship's way from planes to bytes and back, with the tiny bundle: rates, targets, maps, damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import cwic
from cwic import bundle, codec, container, errors, flagship, metrics, networks, symbols
from cwic.container import Chunk
from cwic.flagship_encoder import SIDE_DEAD_ZONE, Picture, rounded_side

BUNDLES = Path(__file__).parent / "data" / "bundles"
MODEL = "tiny-cwic"


def picture(*shape: int) -> np.ndarray:
    """Smooth colour with some noise: uint8 of the shape given, [H,W,3] or [H,W]."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    colours = np.stack([rows * 3 + columns, columns * 2, 200 - rows], axis=-1)
    noisy = colours + np.random.default_rng(0).integers(-20, 20, colours.shape)
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    return image if len(shape) == 3 else image[:, :, 0]


def encode(image: np.ndarray, **options: object) -> bytes:
    return cwic.encode(image, model=MODEL, models_dir=BUNDLES, **options)  # type: ignore[arg-type]


def decode(data: bytes) -> np.ndarray:
    return cwic.decode(data, models_dir=BUNDLES)


IMAGE = picture(70, 130, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 65), (64, 64), (63, 129), (17, 33)])
@pytest.mark.parametrize("grey", [False, True], ids=["RGB", "grey"])
@pytest.mark.parametrize("quality", [0, 37.25, 100])
def test_every_size_and_quality_comes_back(size: tuple[int, int], grey: bool, quality: float) -> None:
    image = picture(*size) if grey else picture(*size, 3)
    data = encode(image, quality=quality)
    returned = decode(data)
    assert returned.shape == image.shape and returned.dtype == np.uint8
    assert encode(image, quality=quality) == data
    if cwic.inspect(data).is_lossless:  # a single pixel is not worth a network
        np.testing.assert_array_equal(returned, image)
        return
    found = codec.decode_symbols(data, models_dir=BUNDLES)
    assert isinstance(found, flagship.Symbols) and found.quality == round(100 * quality)


def test_the_symbols_are_those_of_the_encoder() -> None:
    loaded = bundle.load(MODEL, BUNDLES)
    coded = Picture(IMAGE, loaded)
    levels = np.random.default_rng(1).integers(0, 16, coded.shape).astype(np.uint8)
    for quality in (0, 1234, 10_000):
        found = coded.code(quality, levels)
        back = flagship.decode_symbols(found, loaded)  # which compares the CRC of all of them
        assert np.abs(back.residual).max() > (quality > 0) and np.abs(back.side).max() > 0
        assert back.quality == quality and back.crc() == found.crc()
        np.testing.assert_array_equal(back.importance, levels)


def test_z_is_rounded_to_what_is_worth_its_bits() -> None:
    frequency = np.array([[1, 1, 65530, 2, 2], [16000, 16000, 1536, 16000, 16000]], np.uint16)  # of -2..2
    side = np.array([[[0.55, -0.55, 0.9]], [[0.55, -0.55, 0.45]]], np.float32)
    np.testing.assert_array_equal(rounded_side(side, frequency), [[[0, 0, 0]], [[1, -1, 1]]])
    # As likely as each other, or beyond the table's reach: to the nearest.
    even = np.full((1, 5), 13107, np.uint16)
    far = np.array([[[5.4, 5.6, -7.51, 1.49]]], np.float32)
    np.testing.assert_array_equal(rounded_side(far, even), [[[5, 6, -8, 1]]])
    one_bit = np.array([[10922, 10922, 21845, 10922, 10922]], np.uint16)
    edge = 0.5 + SIDE_DEAD_ZONE * np.log(2) / 12
    close = np.array([[[edge - 0.001, edge + 0.001]]], np.float32)
    np.testing.assert_array_equal(rounded_side(close, one_bit), [[[0, 1]]])


def test_size_grows_with_quality() -> None:
    sizes = [len(encode(IMAGE, quality=quality)) for quality in (0, 25, 50, 100)]  # the tiny bundle wobbles in between
    assert sizes == sorted(sizes) and sizes[-1] > 3 * sizes[0]


def test_targets_are_met_from_the_right_side() -> None:
    low, high = (len(encode(IMAGE, quality=quality)) for quality in (0, 100))
    middle = (low + high) // 2
    by_size = encode(IMAGE, size=middle)
    assert 0.95 * middle <= len(by_size) <= middle  # files of this size grow by words of 4 bytes
    assert len(encode(IMAGE, bpp=8 * middle / IMAGE[..., 0].size)) == len(by_size)
    ends = [metrics.psnr(IMAGE, decode(encode(IMAGE, quality=quality))) for quality in (0, 100)]
    wanted = sum(ends) / 2
    assert wanted <= metrics.psnr(IMAGE, decode(encode(IMAGE, psnr=wanted))) <= wanted + 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 20}, "20 bytes cannot be reached"),
        ({"bpp": 90}, "bytes cannot be reached"),
        ({"psnr": 99}, "99 dB cannot be reached .* quality 100 gives"),
        ({"quality": 100.5}, "quality is 100.5; 0 to 100 is allowed"),
        ({"quality": float("nan")}, "quality is nan"),
        ({"psnr": -1}, "psnr is -1"),
        ({"size": 900, "bpp": 1}, "bpp and size; at most one target"),
        ({"importance": "centre"}, "importance is 'centre'; allowed are"),
    ],
)
def test_what_cannot_be_done_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(errors.TargetUnreachable, match=message):
        encode(IMAGE, **options)


def test_the_papers_models_take_no_target() -> None:
    with pytest.raises(errors.ModelError, match="quality cannot be given for 'tiny-li2018': .* has one rate"):
        cwic.encode(IMAGE, model="tiny-li2018", models_dir=BUNDLES, quality=50)


def test_a_uniform_map_costs_nothing_and_others_are_coded() -> None:
    plain = encode(IMAGE)
    assert encode(IMAGE, importance="uniform") == plain
    assert encode(IMAGE, importance=np.full((3, 3), 128, np.uint8)) == plain
    assert list(cwic.inspect(plain).chunks) == ["CODE"]
    assert (codec.importance_map(plain, models_dir=BUNDLES) == symbols.NEUTRAL_LEVEL).all()
    drawn = np.zeros((70, 130), np.uint8)
    drawn[:, 65:] = 255
    mapped = encode(IMAGE, importance=drawn)
    assert list(cwic.inspect(mapped).chunks) == ["IMAP", "CODE"]
    levels = codec.importance_map(mapped, models_dir=BUNDLES)
    assert levels.shape == (8, 12) and (levels[:5, :4] == 0).all() and (levels[:5, 5:8] == 15).all()
    error = np.abs(decode(mapped).astype(int) - decode(plain)).mean(axis=(0, 2))
    assert error[:64].mean() > 0 and error[80:].mean() > 0


def test_the_bundles_own_map() -> None:
    levels = codec.importance_map(encode(IMAGE, importance="auto"), models_dir=BUNDLES)
    assert len(np.unique(levels)) > 3 and abs(levels.mean() - symbols.NEUTRAL_LEVEL) < 1


def test_bits_of_blocks_add_up_to_the_file() -> None:
    drawn = np.random.default_rng(2).integers(0, 256, (9, 17)).astype(np.uint8)
    for data in (encode(IMAGE), encode(IMAGE, importance=drawn)):
        bits = codec.bits_per_block(data, models_dir=BUNDLES)
        assert bits.shape == (8, 12) and bits.min() > 0
        chunks = cwic.inspect(data).chunks
        assert abs(bits.sum() / 8 - sum(chunks.values())) <= 8 * len(chunks) + 2


def test_damage_is_named_and_never_shown() -> None:
    header, chunks = container.unpack(encode(IMAGE, importance=np.eye(4, dtype=np.uint8) * 255))
    expected = decode(container.pack(header, [Chunk(*item) for item in chunks.items()]))
    random = np.random.default_rng(3)
    for kind, payload in chunks.items():
        for _ in range(60):
            damaged = bytearray(payload)
            damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
            other = chunks | {kind: bytes(damaged)}
            try:
                shown = decode(container.pack(header, [Chunk(*item) for item in other.items()]))
            except errors.Corrupt:
                continue
            np.testing.assert_array_equal(shown, expected)  # the coder's last word has some freedom


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x11\x27", b"\xff\xff\x00\x00\x00\x00", b"\x88\x13abc"])
def test_codes_that_no_encoder_writes(payload: bytes) -> None:
    header, _ = container.unpack(encode(IMAGE))
    with pytest.raises(errors.Corrupt):
        decode(container.pack(header, [Chunk("CODE", payload)]))


def test_an_index_network_that_is_not_exact_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(IMAGE)
    original = networks.Networks.index_sums
    monkeypatch.setattr(networks.Networks, "index_sums", lambda self, side: original(self, side) + np.float32(0.25))
    with pytest.raises(errors.ModelError, match="does not compute exactly"):
        decode(data)


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    path = shutil.copytree(BUNDLES / MODEL, tmp_path / MODEL)
    (path / "means.onnx").unlink()
    with pytest.raises(errors.ModelError, match=r"means\.onnx cannot be read"):
        cwic.encode(IMAGE, model=MODEL, models_dir=tmp_path)
