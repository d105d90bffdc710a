"""Finding and splitting photographs, and the order of batches for any workers, ranks and first step."""

import hashlib
import io
import logging
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from PIL import Image

from cwic_lab import data, images
from cwic_lab.augment import reduced
from cwic_lab.data import DataConfig, DeviceCrops, Loader, find_images, split, validation_images
from cwic_lab.device_crops import SCALES

CROP = 16


def picture(number, height=40, width=50):
    """Red: the row, green: the column, blue: the picture's number; so a crop tells where it came from."""
    pixels = np.full((height, width, 3), number, np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(height)[:, None], np.arange(width)
    return pixels


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as shard:
        for name, content in members.items():
            shard.writestr(name, content)


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as shard:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


@pytest.fixture(autouse=True)
def _no_cwic_data(monkeypatch):
    monkeypatch.delenv("CWIC_DATA", raising=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """13 pictures of several sizes in a folder and two shards; the refs are in the order of their numbers."""
    root = tmp_path_factory.mktemp("photos")
    files = {f"{i:02}.png": png(picture(i, 30 + 3 * i, 60 - 2 * i)) for i in range(13)}
    for name in list(files)[:5]:
        write(root / "a" / name, files[name])
    make_zip(root / "b.zip", {name: files[name] for name in list(files)[5:9]})
    make_tar(root / "c.tar", {name: files[name] for name in list(files)[9:]})
    return find_images([str(root)])


def config(**changes):
    return DataConfig(**{"paths": [], "crop": CROP, "batch": 3, "seed": 5, "workers": 0} | changes)


# ---- find ------------------------------------------------------------------------------------------------


def names(refs, root):
    return [str(ref).removeprefix(f"{root}/") for ref in refs]


def test_find_any_folder_at_any_depth_in_order(tmp_path):
    good, ignored = (
        ["b.JPG", "a/deep/er/z.png", "a/x.webp"],
        [".h.png", "__MACOSX/b.jpg", ".git/c.png", "a.txt"],
    )
    for name in good + ignored:
        write(tmp_path / name, b"not looked at")
    assert names(find_images([str(tmp_path)]), tmp_path) == ["a/deep/er/z.png", "a/x.webp", "b.JPG"]


def test_find_div2k_uses_only_train(tmp_path):
    for name in ["DIV2K_train_HR/0001.png", "DIV2K_valid_HR/0801.png", "DIV2K_train_LR_bicubic/X2/1x2.png"]:
        write(tmp_path / name, b"")
    make_zip(tmp_path / "DIV2K_train_HR.zip", {"DIV2K_train_HR/0001.png": b""})
    assert names(find_images([str(tmp_path)]), tmp_path) == ["DIV2K_train_HR/0001.png"]
    assert names(find_images([str(tmp_path / "DIV2K_valid_HR")]), tmp_path) == ["DIV2K_valid_HR/0801.png"]


def test_find_div2k_as_downloaded(tmp_path):
    for subset in ("train", "valid"):
        name = f"DIV2K_{subset}_HR"
        make_zip(tmp_path / f"{name}.zip", {f"{name}/": b"", f"{name}/1.png": b""})
    assert names(find_images([str(tmp_path)]), tmp_path) == ["DIV2K_train_HR.zip:DIV2K_train_HR/1.png"]


def test_find_flickr30k_ignores_the_captions(tmp_path):
    for name in ["flickr30k_images/1000092795.jpg", "flickr30k_images/results.csv", "results.csv"]:
        write(tmp_path / name, b"")
    assert names(find_images([str(tmp_path)]), tmp_path) == ["flickr30k_images/1000092795.jpg"]


def test_find_shards_by_pattern_and_each_image_once(tmp_path):
    make_zip(tmp_path / "s-1.zip", {"b.jpg": b"", "a.jpg": b"", "README": b"", "__MACOSX/._a.jpg": b""})
    make_tar(tmp_path / "s-2.tar", {"./d.jpg": b"", "c.jpg": b""})
    expected = ["s-1.zip:a.jpg", "s-1.zip:b.jpg", "s-2.tar:./d.jpg", "s-2.tar:c.jpg"]
    assert names(find_images(["s-*"], root=tmp_path), tmp_path) == expected
    assert names(find_images(["s-1.zip", "."], root=tmp_path), tmp_path) == expected
    (tmp_path / "s-1").mkdir()
    write(tmp_path / "s-1" / "a.jpg", b"")  # unpacked beside its shard: counted once
    assert names(find_images(["."], root=tmp_path), tmp_path) == ["s-1/a.jpg", *expected[2:]]


def test_find_looks_in_cwic_data_then_in_the_recipes_folder(tmp_path, monkeypatch):
    for name in ["recipes/set/r.png", "recipes/other/o.png", "data/set/d.png"]:
        write(tmp_path / name, b"")
    root = tmp_path / "recipes"
    assert names(find_images(["set"], root), tmp_path) == ["recipes/set/r.png"]
    monkeypatch.setenv("CWIC_DATA", str(tmp_path / "data"))
    assert names(find_images(["set", "other"], root), tmp_path) == ["data/set/d.png", "recipes/other/o.png"]
    assert names(find_images([str(root / "set")], root), tmp_path) == ["recipes/set/r.png"]


def test_find_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"absent.*{tmp_path}"):
        find_images(["absent"], tmp_path)
    write(tmp_path / "empty" / "notes.txt", b"")
    with pytest.raises(FileNotFoundError, match="empty: no images"):
        find_images(["empty"], tmp_path)
    for name in ("bad.zip", "bad.tar", "packed.tar.gz"):
        write(tmp_path / name, b"x" * 600)
        with pytest.raises(ValueError, match=name):
            find_images([name], tmp_path)


# ---- read ------------------------------------------------------------------------------------------------


def test_read_gives_the_same_pixels_from_folder_zip_and_tar(photos):
    assert [Path(ref.path).suffix for ref in photos] == [".png"] * 5 + [".zip"] * 4 + [".tar"] * 4
    reader = images.Reader()
    for number, ref in enumerate(photos):
        np.testing.assert_array_equal(reader.pixels(ref), picture(number, 30 + 3 * number, 60 - 2 * number))


def test_decode_makes_rgb_of_grey_palette_and_alpha():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(images.decode_pixels(png(grey)), grey[..., None].repeat(3, axis=2))
    rgba = np.dstack([picture(3, 6, 8), grey])
    np.testing.assert_array_equal(images.decode_pixels(png(rgba)), picture(3, 6, 8))
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), (255, 0, 51), np.uint8)).quantize(4).save(buffer, "png")
    np.testing.assert_array_equal(images.decode_pixels(buffer.getvalue())[2, 3], (255, 0, 51))


def test_decode_names_what_is_broken():
    good = png(picture(0))
    deep = png(np.zeros((4, 4), np.uint16))
    for damaged in [b"", b"text", good[:-30], good[:60] + bytes(20) + good[80:], deep]:
        with pytest.raises(images.BrokenImage):
            images.decode_pixels(damaged)


def test_damaged_zip_member_is_one_broken_image(tmp_path):
    make_zip(tmp_path / "s.zip", {"a.png": png(picture(0)), "b.png": png(picture(1))})
    shard = bytearray((tmp_path / "s.zip").read_bytes())
    shard[100] ^= 255
    (tmp_path / "s.zip").write_bytes(shard)
    first, second = find_images(["s.zip"], tmp_path)
    with pytest.raises(images.BrokenImage, match="CRC"):
        images.Reader().read(first)
    assert images.Reader().pixels(second)[0, 0, 2] == 1


# ---- split -----------------------------------------------------------------------------------------------


def test_split_follows_the_hash_of_name_and_bytes(tmp_path):
    files = {f"{i:03}.png": b"%d" % i for i in range(400)}
    for name, content in files.items():
        write(tmp_path / "one" / name, content)
    make_zip(tmp_path / "two.zip", {f"deeper/{name}": content for name, content in files.items()})
    digests = {name: hashlib.sha256(name.encode() + b"\0" + files[name]).digest() for name in files}
    expected = {name for name, digest in digests.items() if digest[0] < 8}  # 8/256 = 1/32
    assert 3 < len(expected) < 25

    train, valid = split(find_images(["one"], tmp_path))
    assert {ref.name for ref in valid} == expected
    assert [ref.name for ref in train] == [name for name in files if name not in expected]
    assert [ref.name for ref in valid] == sorted(expected, key=digests.__getitem__)
    assert [ref.name for ref in split(find_images(["two.zip"], tmp_path))[1]] == [ref.name for ref in valid]
    half = find_images(["one"], tmp_path)[::2]
    assert set(split(half)[1]) == set(valid) & set(half)
    assert {ref.name for ref in split(half, 1 / 64)[1]} <= expected
    assert split(half, 0) == (half, [])
    assert split(half, 1)[0] == []


def test_split_leaves_an_unreadable_file_to_the_report(tmp_path):
    ref = images.ImageRef(str(tmp_path / "gone.png"))
    assert split([ref], 0.999) == ([ref], [])
    with pytest.raises(ValueError, match="fraction"):
        split([ref], 1.5)


def test_validation_images_are_whole_or_central(photos):
    for number, pixels in enumerate(validation_images(photos, 3)):
        np.testing.assert_array_equal(pixels, picture(number, 30 + 3 * number, 60 - 2 * number))
    assert len(validation_images(photos)) == 13
    (central,) = validation_images(photos, 1, crop=20)
    np.testing.assert_array_equal(central, picture(0, 30, 60)[5:25, 20:40])
    assert validation_images(photos, 1, crop=40)[0].shape == (30, 40, 3)


# ---- batches ---------------------------------------------------------------------------------------------


def take(loader, n):
    batches = [next(loader) for _ in range(n)]
    loader.close()
    return torch.stack(batches)


def batches_of(kind, refs, n, start_step=0, rank=0, world=1, **changes):
    """n batches [n,B,3,crop,crop] of either source."""
    if kind == "loader":
        return take(Loader(config(**changes), refs, rank, world, start_step), n)
    crops = DeviceCrops(refs, config(**changes), "cpu", rank, world)
    return torch.stack([crops.batch(step) for step in range(start_step, start_step + n)])


def orientations(window):
    """The 8 flips and rotations of a square [c,c,3]."""
    turned = [np.rot90(window, k) for k in range(4)]
    return turned + [pixels[:, ::-1] for pixels in turned]


both = pytest.mark.parametrize("kind", ["loader", "device"])


@both
def test_crops_are_windows_of_the_photographs_in_all_8_orientations(kind, photos):
    found, corners = set(), set()
    for crop in batches_of(kind, photos, 60).flatten(0, 1).permute(0, 2, 3, 1).numpy():
        assert crop.dtype == np.uint8 and crop.shape == (CROP, CROP, 3)
        number, (top, left) = int(crop[0, 0, 2]), crop[..., :2].min(axis=(0, 1)).tolist()
        window = picture(number, 30 + 3 * number, 60 - 2 * number)[top : top + CROP, left : left + CROP]
        matches = [i for i, turned in enumerate(orientations(window)) if np.array_equal(turned, crop)]
        assert len(matches) == 1
        found.add(matches[0])
        corners.add((top, left))
    assert found == set(range(8))
    assert len(corners) > 120


@both
def test_every_corner_of_a_photograph_comes_up(kind, tmp_path):
    write(tmp_path / "a.png", png(picture(0, CROP + 1, CROP + 2)))
    crops = batches_of(kind, find_images(["a.png"], tmp_path), 40)[:, :, :2].flatten(0, 1)
    corners = {tuple(corner) for corner in crops.amin(dim=(2, 3)).tolist()}
    assert corners == {(top, left) for top in range(2) for left in range(3)}


@both
def test_every_photograph_once_an_epoch_in_a_new_order(kind, photos):
    numbers = batches_of(kind, photos, 13)[:, :, 2, 0, 0].flatten().tolist()  # 39 samples: 3 epochs of 13
    epochs = [numbers[:13], numbers[13:26], numbers[26:]]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@both
def test_the_seed_decides(kind, photos):
    assert torch.equal(batches_of(kind, photos, 5), batches_of(kind, photos, 5))
    assert not torch.equal(batches_of(kind, photos, 5), batches_of(kind, photos, 5, seed=6))


@both
def test_the_same_photograph_is_cut_anew_every_epoch(kind, photos):
    crops = batches_of(kind, photos[:1], 4, batch=1)
    assert len({crop.numpy().tobytes() for crop in crops}) == 4


@both
def test_starting_at_a_later_step_gives_the_same_batches(kind, photos):
    assert torch.equal(batches_of(kind, photos, 9)[6:], batches_of(kind, photos, 3, start_step=6))


@both
def test_the_ranks_batches_together_are_the_batch_of_one_process(kind, photos):
    whole = batches_of(kind, photos, 6, batch=6)
    for rank in range(2):
        assert torch.equal(batches_of(kind, photos, 6, rank=rank, world=2, batch=6), whole[:, rank::2])
    with pytest.raises(ValueError, match=r"data\.batch = 7 for 2 processes"):
        batches_of(kind, photos, 1, rank=0, world=2, batch=7)


@both
def test_small_photographs_are_reflected(kind, tmp_path):
    write(tmp_path / "a.png", png(picture(9, 5, 40)))
    crops = batches_of(kind, find_images(["a.png"], tmp_path), 3)
    assert crops.shape == (3, 3, 3, CROP, CROP)
    assert crops[:, :, 0].max() == 4  # rows 0..4 only
    assert (crops[:, :, 2] == 9).all()


@both
def test_torchs_global_generator_is_left_alone(kind, photos):
    state = torch.get_rng_state()
    batches_of(kind, photos, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_any_number_of_workers_gives_the_same_batches(photos):
    everything = {"downscale": (0.5, 1.0), "jitter": 0.1}
    alone = batches_of("loader", photos, 8, start_step=2, **everything)
    for workers in (1, 2):
        shared = batches_of("loader", photos, 8, start_step=2, workers=workers, **everything)
        assert torch.equal(shared, alone)


def test_loader_downscales_and_jitters_when_told(photos):
    plain = batches_of("loader", photos, 2)
    assert not torch.equal(batches_of("loader", photos, 2, downscale=(0.5, 0.9)), plain)
    assert not torch.equal(batches_of("loader", photos, 2, jitter=0.2, jitter_probability=1.0), plain)


def test_a_worker_started_afresh_opens_its_own_shards(photos):
    batches = data._Batches(config(), photos, 0, 1)
    first = batches[0].crops
    again = pickle.loads(pickle.dumps(batches))  # what a start method other than fork does
    assert torch.equal(again[0].crops, first)


def test_the_recipes_two_sources(photos):
    for source, kind in [("memory", "device"), ("workers", "loader")]:
        stream = data.batches(source, photos, config(batch=6), "cpu", 1, 2, 4)
        expected = batches_of(kind, photos, 3, start_step=4, rank=1, world=2, batch=6)
        assert torch.equal(torch.stack([next(stream) for _ in range(3)]), expected)
    with pytest.raises(ValueError, match="disk"):
        data.batches("disk", photos, config())


# Of crops from photographs blue is the picture's number: the same everywhere, and at most 12.
def is_photograph(crops):
    blue = crops[:, 2].flatten(1)
    return (blue == blue[:, :1]).all(dim=1) & (blue[:, 0] < 13)


def mixed(source, photos, n, rank=0, world=1, start_step=0, **changes):
    stream = data.batches(source, photos, config(hostile=0.25, **changes), "cpu", rank, world, start_step)
    return torch.stack([next(stream) for _ in range(n)])


@pytest.mark.parametrize(("source", "kind"), [("memory", "device"), ("workers", "loader")])
def test_a_share_of_the_samples_is_unlike_photographs(source, kind, photos):
    """The rest are the crops that would have been there; a step, a rank and a number of workers see what is theirs."""
    plain, whole = batches_of(kind, photos, 40, batch=6), mixed(source, photos, 40, batch=6)
    kept = (plain == whole).flatten(2).all(dim=2)
    assert 30 < (~kept).sum() < 90 and not is_photograph(whole[~kept]).all()
    assert is_photograph(whole[kept]).all()
    assert torch.equal(mixed(source, photos, 9, batch=6, start_step=31), whole[31:])
    for rank in range(2):
        assert torch.equal(mixed(source, photos, 40, rank=rank, world=2, batch=6), whole[:, rank::2])
    if source == "workers":
        assert torch.equal(mixed(source, photos, 40, batch=6, workers=1), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_they_are_the_same_on_a_gpu(photos):
    stream = data.batches("memory", photos, config(hostile=0.25), "cuda")
    assert torch.equal(torch.stack([next(stream).cpu() for _ in range(9)]), mixed("memory", photos, 9))


def test_open_data_finds_and_splits(photos):
    root = Path(photos[-1].path).parent
    found = config(paths=["a", "b.zip", "c.tar"], validation_fraction=0.5)
    assert data.open_data(found, root) == split(photos, 0.5)


def test_loader_ends_when_closed(photos):
    loader = Loader(config(), photos, start_step=4)
    next(loader)
    assert loader.step == 5
    loader.close()
    assert list(loader) == []


def test_device_crops_refuse_what_they_cannot_do(photos):
    with pytest.raises(ValueError, match="DeviceCrops"):
        DeviceCrops(photos, config(jitter=0.1))


def test_device_crops_are_cut_from_every_scale_of_a_photograph(tmp_path):
    pixels = picture(0, 64, 96)
    write(tmp_path / "a.png", png(pixels))
    refs = find_images(["a.png"], tmp_path)
    crops = batches_of("device", refs, 20, downscale=(0.5, 1.0)).flatten(0, 1).permute(0, 2, 3, 1).numpy()
    whole = [reduced(pixels, scale, CROP) for scale in np.linspace(0.5, 1.0, SCALES)]
    windows = [np.lib.stride_tricks.sliding_window_view(w, (CROP, CROP, 3)).reshape(-1, CROP, CROP, 3) for w in whole]
    found = {
        number
        for crop in crops
        for number, views in enumerate(windows)
        if any((views == turned).all(axis=(1, 2, 3)).any() for turned in orientations(crop))
    }
    assert found == set(range(SCALES))
    assert [w.shape[:2] for w in whole] == [(32, 48), (43, 64), (53, 80), (64, 96)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_device_crops_are_the_same_on_a_gpu(photos):
    on_gpu = DeviceCrops(photos, config(), "cuda")
    assert on_gpu.batch(3).is_cuda
    assert torch.equal(on_gpu.batch(3).cpu(), DeviceCrops(photos, config()).batch(3))


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": 0},
        {"batch": 0},
        {"seed": -1},
        {"downscale": (0, 1)},
        {"downscale": (0.5, 2)},
        {"jitter": 1.0},
        {"hostile": 1.5},
    ],
)
def test_config_names_the_bad_key(changes):
    with pytest.raises(ValueError, match=f"data.{next(iter(changes))}"):
        config(**changes)


def test_bad_rank_and_no_photographs(photos):
    with pytest.raises(ValueError, match="rank 2 of 2"):
        Loader(config(), photos, 2, 2)
    with pytest.raises(ValueError, match="no photographs"):
        Loader(config(), [])
    with pytest.raises(ValueError, match="no photographs"):
        DeviceCrops([], config())


# ---- broken images ---------------------------------------------------------------------------------------


@pytest.fixture
def one_in_120_broken(tmp_path):
    for i in range(120):
        write(tmp_path / f"{i:03}.png", png(picture(i, CROP, CROP)) if i != 50 else b"broken")
    return find_images(["."], tmp_path)


def test_broken_image_is_reported_once_and_skipped(one_in_120_broken, caplog):
    loader = Loader(config(batch=60), one_in_120_broken)
    numbers = [next(loader)[:, 2, 0, 0].tolist() for _ in range(6)]  # 3 epochs
    assert all(len(batch) == 60 and 50 not in batch for batch in numbers)
    assert len(loader.broken.reasons) == 1 and len(loader.broken.seen) == 120
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "050.png" in record.getMessage() and "cannot decode" in record.getMessage()
    with_workers = batches_of("loader", one_in_120_broken, 6, batch=60, workers=2)
    assert with_workers[:, :, 2, 0, 0].tolist() == numbers


def test_device_crops_report_and_skip_too(one_in_120_broken, caplog):
    crops = DeviceCrops(one_in_120_broken, config(batch=119))
    assert sorted(crops.batch(0)[:, 2, 0, 0].tolist()) == [i for i in range(120) if i != 50]
    assert crops.n_pixels == 119 * CROP * CROP
    assert ["050.png" in record.getMessage() for record in caplog.records] == [True]


@both
@pytest.mark.parametrize("workers", [0, 2])
def test_more_than_1_percent_broken_is_an_error(kind, workers, one_in_120_broken):
    Path(one_in_120_broken[7].path).write_bytes(b"")
    with pytest.raises(data.TooManyBroken, match="2 broken images among"):
        batches_of(kind, one_in_120_broken, 3, batch=60, workers=workers)


def test_a_folder_of_nothing_but_broken_images(tmp_path):
    for i in range(40):
        write(tmp_path / f"{i}.png", b"broken")
    refs = find_images(["."], tmp_path)
    for workers in (0, 1):
        with pytest.raises(data.TooManyBroken):
            next(Loader(config(workers=workers), refs))
    with pytest.raises(data.TooManyBroken):
        validation_images(refs)


def test_the_1_percent_counts_at_least_a_thousand_where_there_are_that_many():
    broken = images.BrokenImages(5000)
    for i in range(10):
        broken.add_broken(f"{i}.png", "because")
        broken.add_broken(f"{i}.png", "because")  # seen again: counted once
    with pytest.raises(images.TooManyBroken, match="11 broken images among 11 seen of 5000"):
        broken.add_broken("last.png", "because")
    small = images.BrokenImages(50)
    with pytest.raises(images.TooManyBroken):
        small.add_broken("first.png", "because")
    late = images.BrokenImages(5000)
    for i in range(3000):
        late.add_seen(f"good {i}")
    for i in range(30):
        late.add_broken(f"{i}.png", "because")
