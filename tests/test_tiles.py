"""Large pictures: tiles that need nothing of each other, no seams, regions, previews, and any number of threads."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from test_flagship import BUNDLES, decode, encode, picture

import cwic
from cwic import areas, bundle, codec, container, errors, flagship, networks, preview, tiles
from cwic.areas import Area
from cwic.container import Chunk

IMAGE = picture(300, 420, 3)  # 5 x 7 positions of z
GRID = (3, 4)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 2 positions, and pictures of any size in tiles of that."""
    monkeypatch.setattr(flagship, "PIECE", 2)
    monkeypatch.setattr(flagship, "MARGIN", 1)  # which is more than the tiny networks look
    monkeypatch.setattr(flagship, "LARGE", 0)


@pytest.fixture
def tiled(small_pieces: None) -> bytes:
    return encode(IMAGE)


def with_tiles(data: bytes, payload: bytes) -> bytes:
    """The file with another payload of TILS, under right CRCs."""
    header, chunks = container.unpack(data)
    return container.pack(header, [Chunk(k, payload if k == "TILS" else p) for k, p in chunks.items()])


def test_a_large_picture_is_in_tiles(tiled: bytes) -> None:
    _, chunks = container.unpack(tiled)
    assert list(chunks) == ["TILS", "pREV"]
    assert struct.unpack_from("<HHH", chunks["TILS"]) == (5000, *GRID)
    found = codec.decode_symbols(tiled, models_dir=BUNDLES)
    assert isinstance(found, flagship.Symbols) and len(found.tiles) == 12
    assert found.residual.shape[1:] == (20, 28) and found.residual.dtype == np.int16
    assert decode(tiled).shape == IMAGE.shape


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("shape", [(300, 420), (400, 33), (129, 64, 3), (300, 420, 4), (200, 65, 2)])
def test_every_shape_comes_back(shape: tuple[int, ...]) -> None:
    image = picture(*shape) if len(shape) == 2 else np.dstack([picture(*shape[:2], 3), picture(*shape[:2])])
    image = image if len(shape) == 2 else np.ascontiguousarray(image[..., : shape[2]])
    data = encode(image, quality=20)
    returned = decode(data)
    assert "TILS" in cwic.inspect(data).chunks and returned.shape == shape
    if image.ndim == 3 and shape[2] != 3:
        np.testing.assert_array_equal(returned[..., -1], image[..., -1])


def test_no_seam_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces of the same symbols against all at once: float rounding, and nothing else."""
    monkeypatch.setattr(flagship, "PIECE", 2)
    monkeypatch.setattr(flagship, "LARGE", 0)
    data = cwic.encode(IMAGE, model="cwic-psnr", quality=40)
    in_pieces = cwic.decode(data).astype(int)
    monkeypatch.setattr(flagship, "PIECE", 1000)
    at_once = cwic.decode(data)
    assert np.abs(in_pieces - at_once).max() <= 1 and abs((in_pieces - at_once).mean()) < 0.001
    monkeypatch.setattr(flagship, "PIECE", 2)
    monkeypatch.setattr(flagship, "MARGIN", 0)  # without margins there are seams, or this test sees nothing
    assert np.abs(cwic.decode(data).astype(int) - at_once).max() > 10


@pytest.mark.usefixtures("small_pieces")
def test_tiles_cost_little_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    in_tiles = decode(encode(IMAGE)).astype(int)
    monkeypatch.setattr(flagship, "LARGE", 2**22)
    whole = decode(encode(IMAGE))
    assert abs(np.mean((in_tiles - IMAGE) ** 2.0) / np.mean((whole - IMAGE.astype(int)) ** 2.0) - 1) < 0.02


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_threads_change_nothing(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
    monkeypatch.setattr(areas, "cores", lambda: 4)
    expected = encode(IMAGE, quality=80, importance=drawn)
    pixels = decode(expected)
    monkeypatch.setattr(areas, "cores", lambda: cores)
    assert encode(IMAGE, quality=80, importance=drawn) == expected
    np.testing.assert_array_equal(decode(expected), pixels)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("options", [{"size": 6000}, {"psnr": 14.0}, {"importance": "auto"}])
def test_targets_and_maps(options: dict[str, object]) -> None:
    data = encode(IMAGE, **options)
    assert "TILS" in cwic.inspect(data).chunks
    if "size" in options:
        assert 4500 < len(data) <= 6000  # sizes of the tiny bundle wobble
    if "psnr" in options:
        assert 10 * np.log10(255**2 / np.mean((decode(data) - IMAGE.astype(float)) ** 2)) >= 14
    levels = codec.importance_map(data, models_dir=BUNDLES)
    assert levels.shape == (20, 28) and ((levels == 8).all() == ("importance" not in options))
    bits = codec.bits_per_block(data, models_dir=BUNDLES)
    assert bits.shape == (20, 28) and bits.sum() / 8 < cwic.inspect(data).chunks["TILS"]


@pytest.mark.parametrize(
    "region", [(0, 0, 420, 300), (0, 0, 1, 1), (419, 299, 1, 1), (100, 70, 200, 150), (3, 129, 400, 2)]
)
def test_a_region_is_that_part_of_the_picture(tiled: bytes, region: tuple[int, int, int, int]) -> None:
    x, y, width, height = region
    part = cwic.decode(tiled, models_dir=BUNDLES, region=region)
    assert part.shape == (height, width, 3)
    assert np.abs(part.astype(int) - decode(tiled)[y : y + height, x : x + width]).max() <= 1


@pytest.mark.parametrize("kind", ["alpha", "lossless", "li2018", "uncut"])
def test_regions_of_other_files(kind: str) -> None:
    image = picture(70, 90, 3)
    if kind == "alpha":
        image = np.dstack([image, image[..., 0]])
    if kind == "lossless":
        image[...] = 7
    data = cwic.encode(image, model="tiny-li2018" if kind == "li2018" else "tiny-cwic", models_dir=BUNDLES)
    part = cwic.decode(data, models_dir=BUNDLES, region=(20, 10, 60, 50))
    assert np.abs(part.astype(int) - decode(data)[10:60, 20:80]).max() <= 1


@pytest.mark.parametrize(
    "region", [(0, 0, 0, 5), (0, 0, 421, 1), (-1, 0, 5, 5), (419, 0, 2, 1), (0, 300, 1, 1), (0, 0, 5, -5)]
)
def test_a_region_outside_is_refused(tiled: bytes, region: tuple[int, int, int, int]) -> None:
    with pytest.raises(errors.RegionOutside, match="the picture has 420 x 300"):
        cwic.decode(tiled, models_dir=BUNDLES, region=region)


def test_a_region_needs_the_tiles_around_it_alone(tiled: bytes) -> None:
    """Damage in the last tile, under right CRCs of the chunks, is not even seen from the first."""
    payload = bytearray(container.unpack(tiled)[1]["TILS"])
    payload[-6] ^= 255
    damaged = with_tiles(tiled, bytes(payload))
    part = cwic.decode(damaged, models_dir=BUNDLES, region=(0, 0, 64, 64))
    np.testing.assert_array_equal(part, cwic.decode(tiled, models_dir=BUNDLES, region=(0, 0, 64, 64)))
    with pytest.raises(errors.Corrupt):
        decode(damaged)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: b"", "TILS has 0 bytes"),
        (lambda p: p[:5], "TILS has 5 bytes"),
        (lambda p: p[:100], "3 x 4 tiles take more than 150"),
        (lambda p: struct.pack("<H", 10_001) + p[2:], "the quality is 10001"),
        (lambda p: p[:2] + struct.pack("<HH", 0, 4) + p[6:], "5 positions are cut into 0; 1 to 5 parts"),
        (lambda p: p[:2] + struct.pack("<HH", 3, 8) + p[6:], "7 positions are cut into 8; 1 to 7 parts"),
        (lambda p: p[:2] + struct.pack("<HH", 1, 1) + p[6:], "at least 2"),
        (lambda p: p[:2] + struct.pack("<HH", 4, 3) + p[6:], "code: "),
        (lambda p: p[:10] + struct.pack("<I", 2**32 - 1) + p[14:], "tile 0 ends .* after the payload"),
        (lambda p: p[:-4], "tile 11 ends 4 bytes after"),
        (lambda p: p + bytes(4), "4 bytes follow the last tile"),
        (lambda p: p[:14] + bytes(4) + p[18:], "the CRC of the tiles' CRCs"),
    ],
)
def test_damaged_tiles_are_corrupt(tiled: bytes, damage: object, message: str) -> None:
    payload = damage(container.unpack(tiled)[1]["TILS"])  # type: ignore[operator]
    with pytest.raises(errors.Corrupt, match=message):
        decode(with_tiles(tiled, payload))


def test_tiles_beside_code_are_corrupt(tiled: bytes) -> None:
    header, chunks = container.unpack(tiled)
    with pytest.raises(errors.Corrupt, match="CODE"):
        decode(container.pack(header, [Chunk("TILS", chunks["TILS"]), Chunk("CODE", b"")]))


def test_tiles_are_at_most_32_positions_a_side() -> None:
    bounds = Area(0, 0, 33, 65)
    for down, across, right in ((2, 3, True), (1, 3, False), (2, 2, False), (33, 65, True)):
        entries = [struct.pack("<III", 0, 0, 0)] * (down * across)
        payload = b"".join([struct.pack("<HHH", 0, down, across), *entries])
        crc = tiles.Tiles(0, down, across, [tiles.Tile(bounds, None, b"", 0)] * (down * across)).crc()
        if right:
            assert len(tiles.from_chunks({"TILS": payload}, bounds, crc).tiles) == down * across
        else:
            with pytest.raises(errors.Corrupt, match="are cut into"):
                tiles.from_chunks({"TILS": payload}, bounds, crc)


def test_the_preview_comes_without_a_bundle(tiled: bytes, tmp_path: Path) -> None:
    small = codec.decode_preview(tiled)  # the package has no tiny bundle
    assert small.shape == (75, 105, 3)
    np.testing.assert_allclose(small.mean(axis=(0, 1)), IMAGE.mean(axis=(0, 1)), atol=6)


@pytest.mark.parametrize("image", [picture(300, 200), picture(100, 30, 3), np.dstack([IMAGE, IMAGE[..., 0]])])
def test_previews_of_files_that_carry_none(image: np.ndarray) -> None:
    data = encode(image)
    small = codec.decode_preview(data, models_dir=BUNDLES)
    assert "pREV" not in cwic.inspect(data).chunks
    assert small.shape[:2] == preview.size_of(*image.shape[:2]) and max(small.shape[:2]) <= 128
    assert small.ndim == 2 or small.shape[2] == 3


def test_a_preview_of_another_size_is_corrupt_and_a_damaged_one_harms_no_picture(tiled: bytes) -> None:
    header, chunks = container.unpack(tiled)
    for stream in (b"", preview.encode(IMAGE[:75, :104], 50), chunks["pREV"][:-8]):
        data = container.pack(header, [Chunk("TILS", chunks["TILS"]), Chunk("pREV", stream)])
        with pytest.raises(errors.Corrupt, match="pREV"):
            codec.decode_preview(data)
        np.testing.assert_array_equal(decode(data), decode(tiled))


def test_limits_are_asked_before_anything_else(tiled: bytes) -> None:
    for call in (cwic.decode, cwic.inspect, codec.decode_preview, codec.metadata):
        with pytest.raises(errors.LimitExceeded, match="420 x 300 pixels.* at most 65535 on a side and 125999 in all"):
            call(tiled, max_pixels=420 * 300 - 1)
    assert cwic.decode(tiled, models_dir=BUNDLES, max_pixels=420 * 300).shape == IMAGE.shape
    with pytest.raises(errors.UnsupportedImage, match="125999 in all"):
        encode(IMAGE, max_pixels=420 * 300 - 1)


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    data = encode(IMAGE, progress=lambda *what: told.append(what))
    cwic.decode(data, models_dir=BUNDLES, progress=lambda *what: told.append(what))
    assert [what for what, done, total in told if done == total] == ["analysis", "coding", "latents", "pixels"]


@pytest.mark.parametrize("model", ["cwic-psnr", "cwic-ssim"])
def test_the_published_networks_look_no_further_than_the_margin(model: str) -> None:
    """Change one place, and see how far away something else comes out."""
    nets, loaded = networks.Networks(bundle.load(model)), bundle.load(model)
    rng, n, middle = np.random.default_rng(0), 2 * flagship.MARGIN + 3, flagship.MARGIN + 1
    planes = rng.uniform(-1, 1, (3, 64 * n, 64 * n)).astype(np.float32)
    y = rng.normal(size=(loaded.channels, 4 * n, 4 * n)).astype(np.float32)
    z = np.rint(rng.normal(size=(loaded.side_channels, n, n))).astype(np.float32)
    q = np.full((1, 4 * n, 4 * n), 0.5, np.float32)
    runs = [
        (planes, 64, lambda x: nets.latents(x).latents),
        (y, 4, lambda x: nets.side(x, q)),
        (q, 4, lambda x: nets.side(y, x)),
        (y, 4, lambda x: nets.rounded(x, z, q, np.zeros_like(y))),
        (np.rint(y), 4, lambda x: nets.decoded(x, z, q)),
        (z, 1, lambda x: nets.decoded(np.rint(y), x, q)),
        (y, 4, lambda x: nets.planes(x, q)),
        (q, 4, lambda x: nets.planes(y, x)),
    ]
    for given, scale, run in runs:
        other = given.copy()
        Area(middle, middle, middle + 1, middle + 1).of(other, scale)[...] += 1
        differs = np.flatnonzero(np.abs(run(other) - run(given)).max(axis=(0, 2)) > 0)
        per = run(given).shape[1] // n
        assert differs.size and (middle - flagship.MARGIN) * per <= differs[0]
        assert differs[-1] < (middle + 1 + flagship.MARGIN) * per
