"""Alpha is exact, colours that nobody sees cost nothing, and a stream that is not the alpha announced is refused."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cwic
from cwic import alpha, codec, container, errors, lossless, webp
from cwic.container import Chunk

BUNDLES = Path(__file__).parent / "data" / "bundles"
MODELS = ["tiny-autoencoder", "tiny-li2018", "tiny-cwic"]
SHAPES = [(1, 1), (1, 20), (9, 7), (33, 50), (70, 130)]


def picture(height: int, width: int, channels: int) -> np.ndarray:
    """Noise on a slope, alpha last: a disc that fades at its border. uint8 [height,width,channels]."""
    random = np.random.default_rng(height + width)
    rows, columns = np.mgrid[:height, :width]
    slope = (rows + columns)[:, :, None] + random.integers(0, 90, (height, width, channels))
    distance = np.hypot(rows - height / 2, columns - width / 2)
    slope[:, :, -1] = 255 - 40 * (distance - min(height, width) / 3)
    return slope.clip(0, 255).astype(np.uint8)


def encode(image: np.ndarray, model: str = "tiny-cwic", **options: object) -> bytes:
    return cwic.encode(image, model=model, models_dir=BUNDLES, **options)  # type: ignore[arg-type]


def decode(data: bytes) -> np.ndarray:
    return cwic.decode(data, models_dir=BUNDLES)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("channels", [2, 4], ids=["grey", "RGB"])
@pytest.mark.parametrize("shape", SHAPES)
def test_alpha_comes_back_exactly_and_colours_as_without_it(model: str, channels: int, shape: tuple[int, int]) -> None:
    image = picture(*shape, channels)
    returned = decode(encode(image, model))
    assert returned.shape == image.shape and returned.dtype == np.uint8
    np.testing.assert_array_equal(returned[:, :, -1], image[:, :, -1])
    opaque = image.copy()
    opaque[:, :, -1] = 255
    colours = opaque[:, :, 0] if channels == 2 else opaque[:, :, :3]
    plain = encode(np.ascontiguousarray(colours), model)
    np.testing.assert_array_equal(alpha.split(decode(encode(opaque, model)))[0], decode(plain))
    assert len(encode(opaque, model)) <= len(plain) + 80  # a constant picture


def test_the_file_says_so() -> None:
    info = cwic.inspect(encode(picture(33, 50, 4)))
    assert info.has_alpha and info.colours == 3 and "ALPH" in info.chunks
    info = cwic.inspect(encode(picture(33, 50, 2)))
    assert info.has_alpha and info.colours == 1
    assert not cwic.inspect(encode(picture(33, 50, 3))).has_alpha


@pytest.mark.parametrize("model", MODELS)
def test_what_nobody_sees_has_no_say(model: str) -> None:
    image = picture(130, 190, 4)
    hidden = image[:, :, 3] == 0
    noisy, flat = image.copy(), image.copy()
    noisy[hidden, :3] = np.random.default_rng(1).integers(0, 256, (hidden.sum(), 3))
    flat[hidden, :3] = 128
    assert hidden.mean() > 0.4
    assert encode(noisy, model) == encode(flat, model)


def test_what_nobody_sees_costs_nearly_nothing() -> None:
    """With the shipped model: noise of which only a tenth is visible, in hardly more than a tenth of the bytes."""
    image = np.random.default_rng(2).integers(0, 256, (320, 320, 4), np.uint8)
    image[:, :, 3] = 0
    image[100:200, 100:200, 3] = 255
    whole, part = (cwic.inspect(cwic.encode(pixels)) for pixels in (image[:, :, :3], image))
    assert part.chunks["CODE"] < 0.14 * whole.chunks["CODE"] and part.chunks["ALPH"] < 200


def test_without_a_visible_pixel_a_file_is_tiny() -> None:
    image = picture(100, 100, 4)
    image[:, :, 3] = 0
    assert len(encode(image)) < 200
    assert not decode(encode(image)).any()


def test_grey_is_no_larger_than_the_same_as_rgb() -> None:
    for channels in (1, 2):
        grey = picture(90, 120, channels)
        rgb = np.dstack([grey[:, :, :1]] * 3 + [grey[:, :, 1:]])
        for model in MODELS:
            assert len(encode(grey[:, :, 0] if channels == 1 else grey, model)) <= len(encode(rgb, model))


@pytest.mark.parametrize("channels", [2, 4], ids=["grey", "RGB"])
def test_a_drawing_with_alpha_is_kept_exactly_where_it_is_seen(channels: int) -> None:
    image = np.zeros((90, 120, channels), np.uint8)
    image[20:70, 30:90] = 200
    image[30:60, 40:80, -1] = 77
    image[:10, :, :-1] = np.random.default_rng(0).integers(0, 256, (10, 120, channels - 1))  # under alpha 0
    data = encode(image)
    assert set(cwic.inspect(data).chunks) == {"PIXL", "ALPH"} and len(data) < 400
    returned = decode(data)
    np.testing.assert_array_equal(returned[20:70, 30:90], image[20:70, 30:90])
    np.testing.assert_array_equal(returned[:, :, -1], image[:, :, -1])


@pytest.mark.parametrize("target", [{"size": 1200}, {"bpp": 0.9}])
def test_targets_count_alpha(target: dict[str, float]) -> None:
    data = encode(picture(90, 120, 4), **target)
    assert len(data) <= {"size": 1200, "bpp": 0.9 * 90 * 120 / 8}[next(iter(target))]


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**16),
    levels=st.sampled_from([1, 2, 5, 256]), grey=st.booleans(),
)  # fmt: skip
def test_payloads_and_parts_round_trip(height: int, width: int, seed: int, levels: int, grey: bool) -> None:
    random = np.random.default_rng(seed)
    plane = (random.integers(0, levels, (height, width)) * (255 // max(1, levels - 1))).astype(np.uint8)
    np.testing.assert_array_equal(alpha.decode(alpha.encode(plane), height, width), plane)
    colours = random.integers(0, 256, (height, width) if grey else (height, width, 3)).astype(np.uint8)
    for found, expected in zip(alpha.split(alpha.join(colours, plane)), (colours, plane), strict=True):
        np.testing.assert_array_equal(found, expected)
    other = np.where(plane.reshape(colours.shape[:2] + (1,) * (colours.ndim - 2)) > 0, colours, 255 - colours)
    for changed in (alpha.smoothed, alpha.blackened):
        np.testing.assert_array_equal(changed(colours, plane)[plane > 0], colours[plane > 0])
        np.testing.assert_array_equal(changed(colours, plane), changed(other, plane))


def test_smoothed_stays_between_what_is_visible_and_has_no_edges() -> None:
    colours = np.full((300, 301), 255, np.uint8)
    plane = np.zeros_like(colours)
    colours[:, :40], plane[:, :40] = 40, 255
    colours[:, 260:], plane[:, 260:] = 200, 1
    found = alpha.smoothed(colours, plane).astype(int)
    assert found.min() == 40 and found.max() == 200
    assert np.abs(np.diff(found, axis=1)).max() <= 8 and np.abs(np.diff(found, axis=0)).max() <= 8


@pytest.mark.parametrize("shape", [(webp.MAX_SIDE + 2, 2), (1, 2 * webp.MAX_SIDE + 1), (2, webp.MAX_SIDE)])
def test_longer_than_webp_allows_is_in_tiles(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(alpha.decode(alpha.encode(plane), *shape), plane)


def test_of_large_pictures_it_is_in_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    monkeypatch.setattr(alpha, "LARGE", 1999)
    monkeypatch.setattr(alpha, "TILE_OF_LARGE", 32)
    assert alpha.encode(plane).count(b"WEBPVP8L") == 4
    np.testing.assert_array_equal(alpha.decode(alpha.encode(plane), 40, 50), plane)
    monkeypatch.setattr(alpha, "LARGE", 2000)
    assert alpha.encode(plane).count(b"WEBPVP8L") == 1


PLANE = picture(40, 30, 2)[:, :, 1].copy()


def packed(*streams: bytes, crc: int = zlib.crc32(PLANE.tobytes())) -> bytes:
    return struct.pack("<I", crc) + b"".join(struct.pack("<I", len(stream)) + stream for stream in streams)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\0\0\0", packed(), packed(b""), packed(b"RIFF"), packed(lossless.stream(PLANE[:, 1:].copy())),
        packed(lossless.stream(PLANE))[:-9], packed(lossless.stream(PLANE)) + b"\0",
        packed(lossless.stream(PLANE), crc=0), packed(lossless.stream(PLANE), lossless.stream(PLANE)),
        packed(lossless.stream(255 - PLANE)),
        packed(lossless.stream(np.zeros((4000, 4000), np.uint8))), packed(lossless.stream(PLANE.T.copy())),
        packed()[:4] + b"\xff\xff\xff\xff" + lossless.stream(PLANE), b"\x89PNG\r\n\x1a\n" + bytes(40),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["tiny-cwic", "tiny-li2018"])
def test_another_alpha_is_refused(payload: bytes, model: str) -> None:
    header, chunks = container.unpack(encode(np.dstack([PLANE, PLANE]), model))
    assert np.array_equal(decode(pack(header, chunks | {"ALPH": packed(lossless.stream(PLANE))}))[:, :, 1], PLANE)
    with pytest.raises(errors.Corrupt, match="ALPH"):
        decode(pack(header, chunks | {"ALPH": payload}))


def pack(header: container.Header, chunks: dict[str, bytes]) -> bytes:
    return container.pack(header, [Chunk(*chunk) for chunk in chunks.items()])


def test_alpha_alone_or_of_another_size_is_refused() -> None:
    header, chunks = container.unpack(encode(picture(40, 30, 4), "tiny-li2018"))
    with pytest.raises(errors.Corrupt, match=r"the file has the chunks \[\]"):
        decode(pack(header, {"ALPH": chunks["ALPH"]}))
    with pytest.raises(errors.Corrupt, match="ALPH"):
        decode(pack(replace(header, width=29), chunks))


def test_a_huge_size_reserves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream's own first bytes are compared before Pillow, which reserves memory for them, sees it."""
    stream = bytearray(lossless.stream(PLANE))
    stream[21:25] = struct.pack("<I", 0x3FFF | 0x3FFF << 14)
    monkeypatch.setattr(webp, "WebPImageFile", None)  # so that a call would be a TypeError
    with pytest.raises(errors.Corrupt, match=r"\(16384, 16384\) pixels; \(30, 40\) are allowed"):
        lossless.decode(bytes(stream), 40, 30, 1, "ALPH")


def test_every_flipped_byte_is_named() -> None:
    data = encode(picture(9, 17, 4), "tiny-li2018")
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        with pytest.raises(errors.FormatError):
            decode(bytes(damaged))


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_any_payload_gives_that_alpha_or_an_error(junk: bytes, position: int) -> None:
    payload = packed(lossless.stream(PLANE))
    changed = payload[:position] + junk + payload[position + len(junk) :]
    try:
        np.testing.assert_array_equal(alpha.decode(changed, *PLANE.shape), PLANE)
    except errors.Corrupt:
        pass


def test_other_ways_to_look_at_a_file_take_alpha_too() -> None:
    data = encode(picture(33, 50, 4), "tiny-li2018")
    plain = encode(np.ascontiguousarray(alpha.smoothed(*alpha.split(picture(33, 50, 4)))), "tiny-li2018")  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        codec.importance_map(data, models_dir=BUNDLES), codec.importance_map(plain, models_dir=BUNDLES)
    )
    assert codec.bits_per_block(data, models_dir=BUNDLES).shape == (5, 7)
