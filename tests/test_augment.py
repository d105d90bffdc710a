"""Augmentations: pure, seeded, and each does what its name says and nothing else."""

import numpy as np
import pytest

from cwic_lab import augment

STEPS = {
    "downscale": lambda pixels, generator: augment.random_downscale(pixels, generator, 0.5, 1.0, 16),
    "crop": lambda pixels, generator: augment.random_crop(pixels, generator, 16),
    "flip": augment.random_flip,
    "rotation": augment.random_rotation,
    "jitter": lambda pixels, generator: augment.colour_jitter(pixels, generator, 0.2, 0.5),
    "all": lambda pixels, generator: augment.augment(pixels, generator, 16, (0.5, 1.0), 0.2),
}


def generator(seed=0):
    return np.random.default_rng(seed)


def noise(height, width, seed=0):
    return generator(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coordinates(height, width):
    """A picture whose red is the row and green the column, so that a crop tells where it came from."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(height)[:, None], np.arange(width)
    return pixels


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_same_seed_same_pixels_and_the_input_is_untouched(step):
    pixels = noise(30, 40)
    before = pixels.copy()
    results = [step(pixels, generator(7)) for _ in range(2)]
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(pixels, before)
    assert results[0].dtype == np.uint8
    assert any(not np.array_equal(step(pixels, generator(seed)), results[0]) for seed in range(8, 20))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_step_draws_as_much_for_any_picture(step):
    states = []
    for height, width in [(16, 16), (16, 50), (41, 23)]:
        random = generator(3)
        step(noise(height, width), random)
        states.append(random.bit_generator.state)
    assert states[0] == states[1] == states[2]


def test_downscale_stays_between_its_factors_and_above_the_crop():
    pixels = noise(60, 80)
    widths = [augment.random_downscale(pixels, generator(i), 0.5, 0.75, 8).shape[1] for i in range(40)]
    assert 40 <= min(widths) < 45 and 55 < max(widths) <= 60
    for seed in range(40):
        height, width = augment.random_downscale(noise(20, 50), generator(seed), 0.1, 0.2, 16).shape[:2]
        assert (height, width) == (16, 40)


@pytest.mark.parametrize("shape", [(16, 40), (9, 9), (1, 70)])
def test_downscale_leaves_a_picture_as_small_as_the_crop(shape):
    pixels = noise(*shape)
    np.testing.assert_array_equal(augment.random_downscale(pixels, generator(), 0.5, 0.5, 16), pixels)


def test_downscale_does_not_alias():
    checkers = np.zeros((64, 64, 3), np.uint8)
    checkers[::2, ::2] = checkers[1::2, 1::2] = 255
    for factor in (0.5, 0.55, 0.6):  # every second pixel would give all black, or bands
        inside = augment.random_downscale(checkers, generator(), factor, factor, 8)[3:-3, 3:-3]
        assert abs(inside.mean() - 127.5) < 3
        assert inside.std() < 25
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, axis=0).repeat(3, axis=2)
    half = augment.random_downscale(ramp, generator(), 0.5, 0.5, 8)[8, 3:-3, 0].astype(int)
    np.testing.assert_allclose(half, (np.arange(3, 29) * 2 + 0.5) * 4, atol=1)  # and things keep their place


def test_pad_reflects_to_the_crop_and_no_further():
    padded = augment.pad(coordinates(3, 10), 8)
    assert padded.shape == (8, 10, 3)
    np.testing.assert_array_equal(padded[:, 0, 0], [0, 1, 2, 1, 0, 1, 2, 1])
    big = noise(9, 12)
    assert augment.pad(big, 9) is big
    assert (augment.pad(np.full((1, 1, 3), 7, np.uint8), 5) == np.full((5, 5, 3), 7)).all()


def test_crop_is_a_window_and_every_window_comes_up():
    pixels = coordinates(7, 6)
    corners = set()
    for seed in range(200):
        crop = augment.random_crop(pixels, generator(seed), 4)
        top, left = (int(value) for value in crop[0, 0, :2])
        np.testing.assert_array_equal(crop, pixels[top : top + 4, left : left + 4])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(4) for left in range(3)}


def test_crop_refuses_a_picture_that_is_too_small():
    with pytest.raises(ValueError, match="5x9"):
        augment.random_crop(noise(5, 9), generator(), 6)


def test_flip_mirrors_half_of_the_time():
    pixels = noise(4, 5)
    results = [augment.random_flip(pixels, generator(seed)) for seed in range(200)]
    mirrored = [np.array_equal(result, pixels[:, ::-1]) for result in results]
    kept = [np.array_equal(result, pixels) for result in results]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_rotation_takes_the_four_turns_equally_often():
    pixels = noise(4, 5)
    corner = {tuple(pixels[y, x]): turn for turn, (y, x) in enumerate([(0, 0), (0, -1), (-1, -1), (-1, 0)])}
    counts = [0] * 4
    for seed in range(400):
        turned = augment.random_rotation(pixels, generator(seed))
        turn = corner[tuple(turned[0, 0])]
        assert turned.shape == (pixels.shape if turn % 2 == 0 else (5, 4, 3))
        clockwise = [(0, -1), (-1, -1), (-1, 0), (0, 0)]
        assert tuple(turned[0, -1]) == tuple(pixels[clockwise[turn]])  # so it is no mirror image
        counts[turn] += 1
    assert min(counts) > 60


def test_jitter_follows_its_formula():
    pixels = noise(6, 7, seed=5)
    brightness, contrast, saturation = generator(11).uniform(0.8, 1.2, 3)
    luma = np.array([0.299, 0.587, 0.114])
    bright = pixels * brightness
    mean = (bright @ luma).mean()
    contrasted = mean + contrast * (bright - mean)
    grey = (contrasted @ luma)[..., None]
    expected = np.clip(grey + saturation * (contrasted - grey), 0, 255)
    result = augment.colour_jitter(pixels, generator(11), 0.2, 1.0)
    np.testing.assert_allclose(result.astype(float), expected, atol=0.51)
    assert not np.array_equal(result, pixels)


def test_jitter_is_off_at_strength_or_probability_0_and_keeps_grey_grey():
    pixels = noise(6, 7)
    assert augment.colour_jitter(pixels, generator(), 0.0, 1.0) is pixels
    assert augment.colour_jitter(pixels, generator(), 0.5, 0.0) is pixels
    changed = [augment.colour_jitter(pixels, generator(seed), 0.3, 0.25) is not pixels for seed in range(200)]
    assert 25 < sum(changed) < 80
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    result = augment.colour_jitter(grey, generator(), 0.3, 1.0)
    assert (result == result[..., :1]).all()
