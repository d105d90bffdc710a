"""The codec as a whole: round trips of every size, and damage that is always named and never shown."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cwic
from cwic import bundle, codec, container, errors, paper, symbols
from cwic.container import Chunk

BUNDLES = Path(__file__).parent / "data" / "bundles"
MODELS = ["tiny-autoencoder", "tiny-li2018"]
SIZES = [(1, 1), (1, 20), (20, 1), (7, 9), (8, 8), (9, 8), (8, 9), (17, 33)]


def picture(*shape: int) -> np.ndarray:
    """Smooth colour with some noise: uint8 of the shape given, [H,W,3] or [H,W]."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    colours = np.stack([rows * 9 + columns, columns * 5, 200 - rows * 3], axis=-1)
    noisy = colours + np.random.default_rng(0).integers(-20, 20, colours.shape)
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    return image if len(shape) == 3 else image[:, :, 0]


def encode(image: np.ndarray, model: str) -> bytes:
    return cwic.encode(image, model=model, models_dir=BUNDLES)


def decode(data: bytes) -> np.ndarray:
    return cwic.decode(data, models_dir=BUNDLES)


@pytest.fixture(scope="module", params=MODELS)
def small(request: pytest.FixtureRequest) -> bytes:
    """A small file of each kind."""
    return encode(picture(9, 17, 3), request.param)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("grey", [False, True], ids=["RGB", "grey"])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_comes_back(model: str, grey: bool, size: tuple[int, int]) -> None:
    image = picture(*size) if grey else picture(*size, 3)
    data = encode(image, model)
    returned = decode(data)
    assert returned.shape == image.shape and returned.dtype == np.uint8
    assert encode(image, model) == data
    np.testing.assert_array_equal(decode(data), returned)


@pytest.mark.parametrize("model", MODELS)
def test_the_picture_is_what_the_networks_make_of_the_symbols(model: str) -> None:
    """decode() against its parts put together here, from latents that never saw the entropy coder."""
    from cwic import pixels
    from cwic.networks import Networks

    image = picture(24, 40, 3)
    loaded = bundle.load(model, BUNDLES)
    nets = Networks(loaded)
    latents, importance = nets.analysis(pixels.to_planes(image, 8))
    if importance is None:
        seen = np.rint(latents * 255) / 255
    else:
        levels = np.minimum(np.floor(importance * loaded.levels), loaded.levels - 1)
        kept = np.arange(loaded.channels)[:, None, None] < levels * (loaded.channels / loaded.levels)
        assert 0 < kept.mean() < 1  # a map that keeps all or nothing would prove little
        seen = np.where(kept, np.where(latents > 0.5, 1, -1), 0)
    planes = nets.synthesis(seen.astype(np.float32))
    expected = np.clip(np.floor(planes * 127.5 + 128), 0, 255).transpose(1, 2, 0)
    assert np.abs(decode(encode(image, model)) - expected).max() <= 1
    assert expected.std() > 5


def test_inspect_tells_the_header_without_a_bundle(small: bytes) -> None:
    info = cwic.inspect(small)
    loaded = bundle.load(info.model_id, BUNDLES)
    assert (info.version, info.width, info.height, info.colours) == (1, 17, 9, 3)
    assert info.model_hash == loaded.hash[:8].hex()
    assert info.n_bytes == len(small) and info.bits_per_pixel == pytest.approx(8 * len(small) / (9 * 17))
    assert set(info.chunks) == ({"CODE"} if info.model_id == "tiny-autoencoder" else {"IMAP", "CODE"})
    assert sum(info.chunks.values()) + 12 * len(info.chunks) + 32 + len(info.model_id) == len(small)


def test_importance_map_is_the_encoders() -> None:
    from cwic import pixels
    from cwic.networks import Networks

    image = picture(33, 50, 3)
    found = codec.importance_map(encode(image, "tiny-li2018"), models_dir=BUNDLES)
    importance = Networks(bundle.load("tiny-li2018", BUNDLES)).analysis(pixels.to_planes(image, 8)).importance
    assert importance is not None and found.dtype == np.uint8
    np.testing.assert_array_equal(found, symbols.importance_levels(importance, 4))
    with pytest.raises(errors.ModelError, match="'tiny-autoencoder' has no importance map"):
        codec.importance_map(encode(image, "tiny-autoencoder"), models_dir=BUNDLES)


@pytest.mark.parametrize("model", MODELS)
def test_bits_per_block_add_up_to_the_chunks(model: str) -> None:
    data = encode(picture(64, 96, 3), model)
    bits = codec.bits_per_block(data, models_dir=BUNDLES)
    assert bits.shape == (8, 12)
    assert bits.min() > 0
    chunks = cwic.inspect(data).chunks
    spent = 8 * sum(chunks.values())
    assert spent - 64 * len(chunks) <= bits.sum() <= spent  # the coder ends with one or two words of 32 bits
    assert bits.sum() > 0.7 * spent
    if model == "tiny-li2018":
        levels = codec.importance_map(data, models_dir=BUNDLES)
        assert bits[levels == 3].mean() > bits[levels == 0].mean() + 1


def test_every_flipped_byte_is_named(small: bytes) -> None:
    for position in range(len(small)):
        for change in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(small)
            damaged[position] ^= change
            with pytest.raises(errors.FormatError):
                decode(bytes(damaged))


def test_every_truncation_is_named(small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(errors.NotCwic if length < 4 else errors.Truncated):
            decode(small[:length])


@pytest.mark.parametrize("extra", [b"\0", b"CODE", bytes(100)])
def test_appended_bytes_are_named(small: bytes, extra: bytes) -> None:
    with pytest.raises(errors.Corrupt, match="follow the last chunk"):
        decode(small + extra)
    with pytest.raises(errors.Corrupt, match="follow the last chunk"):
        decode(small + small)


def repacked(data: bytes, **changes: object) -> bytes:
    """The file with header fields or payloads (IMAP=, CODE=) changed, and every CRC made right again."""
    header, chunks = container.unpack(data)
    chunks |= {kind: changes.pop(kind) for kind in ("IMAP", "CODE") if kind in changes}  # type: ignore[misc]
    return container.pack(
        replace(header, **changes),  # type: ignore[arg-type]
        [Chunk(kind, payload) for kind, payload in chunks.items() if payload is not None],
    )


def test_damage_behind_right_crcs_never_gives_another_picture(small: bytes) -> None:
    """Payloads that a hostile writer, or one with a bug, could have put there."""
    _, chunks = container.unpack(small)
    picture = decode(small)
    random = np.random.default_rng(1)
    n_refused = 0
    for kind, payload in chunks.items():
        others = [b"", payload[:-1], payload[1:], payload + bytes(4), payload + payload, bytes(len(payload))]
        others += [random.bytes(4 * int(n)) for n in random.integers(0, len(payload) // 2 + 2, 60)]
        for position in range(len(payload)):
            flipped = bytearray(payload)
            flipped[position] ^= 1 << int(random.integers(8))
            others.append(bytes(flipped))
        for other in others:
            try:  # the coder's last word has some freedom: another one may stand for the same symbols
                np.testing.assert_array_equal(decode(repacked(small, **{kind: other})), picture)
            except errors.Corrupt:
                n_refused += 1
    assert n_refused > 100


def test_other_symbols_than_the_encoders_are_never_shown(small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    crc = container.unpack(small)[0].symbols_crc
    monkeypatch.setattr(paper, "networks_of", None)  # so that a synthesis would be a TypeError
    with pytest.raises(errors.Corrupt, match="decoded symbols have the CRC"):
        decode(repacked(small, symbols_crc=crc ^ 1))


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (17, 8), (8, 17), (25, 9), (17, 17), (65_535, 1), (1, 65_535), (900, 900)]
)
def test_another_size_in_the_header_is_named(small: bytes, width: int, height: int) -> None:
    with pytest.raises(errors.Corrupt):
        decode(repacked(small, width=width, height=height))


def test_chunks_of_the_other_kind_are_named() -> None:
    plain, mapped = (encode(picture(9, 17, 3), model) for model in MODELS)
    with pytest.raises(errors.Corrupt, match=r"chunks \['CODE', 'IMAP'\]; a autoencoder file has \['CODE'\]"):
        decode(repacked(plain, IMAP=b""))
    with pytest.raises(errors.Corrupt, match=r"chunks \['CODE'\]; a li2018 file has"):
        decode(repacked(mapped, IMAP=None))


def test_a_code_without_a_kept_bit_is_empty() -> None:
    levels, bits = np.zeros((2, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    loaded = bundle.load("tiny-li2018", BUNDLES)
    empty = paper.Symbols(bits, levels)
    header = container.Header(17, 9, 3, loaded.id, loaded.hash[:8], empty.crc())
    chunks = paper.to_chunks(empty, loaded)
    assert chunks[1].payload == b""
    assert decode(container.pack(header, chunks)).shape == (9, 17, 3)
    for junk in (bytes(4), b"junk", bytes(8)):
        with pytest.raises(errors.Corrupt):
            decode(container.pack(header, [chunks[0], Chunk("CODE", junk)]))


def test_a_chunk_that_may_be_skipped_is(small: bytes) -> None:
    header, chunks = container.unpack(small)
    data = container.pack(header, [Chunk("nOTE", b"?"), *(Chunk(*item) for item in chunks.items())])
    np.testing.assert_array_equal(decode(data), decode(small))


def test_a_missing_or_another_model_is_named(small: bytes) -> None:
    with pytest.raises(errors.ModelNotFound, match="'unheard-of' is not installed"):
        decode(repacked(small, model_id="unheard-of"))
    with pytest.raises(errors.ModelMismatch, match="install the version of cwic that wrote the file"):
        decode(repacked(small, model_hash=bytes(8)))
    with pytest.raises(errors.ModelNotFound):
        cwic.encode(picture(8, 8), model="unheard-of")


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8), [[0]]],
)
def test_other_images_are_refused_before_anything_is_loaded(image: np.ndarray) -> None:
    with pytest.raises(errors.UnsupportedImage, match="allowed"):
        cwic.encode(image, model="unheard-of")


def test_the_symbols_crc_is_the_formats(small: bytes) -> None:
    found = codec.decode_symbols(small, models_dir=BUNDLES)
    raw = (b"" if found.importance is None else found.importance.tobytes()) + found.code.tobytes()
    stored = struct.unpack_from("<I", small, 22)[0]
    assert stored == zlib.crc32(raw)
