"""Training of the context networks: what is trained is what ships, and it saves bits."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cwic.entropy import code, context, tables  # noqa: E402
from cwic_lab import prior  # noqa: E402

N, LEVELS = 64, 16


def smooth_codes(count, seed):
    """Codes whose bits agree with their neighbours, under smooth maps: (bits [n,h,w], levels [h,w])."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        field = rng.standard_normal((N, 16, 20))
        for axis in (1, 2, 1, 2):
            field = field + np.roll(field, 1, axis)
        slope = np.add.outer(np.linspace(0, LEVELS - 1, 16), rng.normal(0, 1, 20))
        levels = np.clip(slope, 0, LEVELS - 1).astype(np.uint8)
        kept = np.arange(N)[:, None, None] < levels.astype(int)[None] * (N // LEVELS)
        made.append(((field > 0).astype(np.uint8) * kept, levels))
    return made


@pytest.fixture(scope="module")
def trained():
    codes = smooth_codes(8, 0)
    model = prior.train_context(codes, N, LEVELS, steps=150, seed=0)
    return model, prior.export_context(model, codes, N, LEVELS)


def test_the_model_computes_the_shipped_integers(trained):
    model, made = trained
    rng = np.random.default_rng(1)
    contexts = rng.integers(-1, 2, (400, tables.CONTEXT_SIZE)).astype(np.float32)
    planes, levels = rng.integers(0, N, 400), rng.integers(0, LEVELS, 400)
    network = context.ContextNetwork(made, "code")
    index = network.index(contexts, network.bias(planes, levels))
    with torch.no_grad():
        logit = model(torch.from_numpy(contexts), torch.from_numpy(planes), torch.from_numpy(levels)).numpy()
    total = logit.astype(np.float64) * prior.LOGIT_ONE
    np.testing.assert_array_equal(total, np.round(total))  # a whole number before the division
    np.testing.assert_array_equal(index, np.clip(np.floor(total / 64) + 128, 0, 255))


def test_files_get_smaller_than_a_bit_for_a_bit(trained):
    _, made = trained
    spent = kept = 0
    for bits, levels in smooth_codes(3, 5):  # not trained on
        data = code.encode_code(bits, levels, N, LEVELS, made)
        np.testing.assert_array_equal(code.decode_code(data, levels, N, LEVELS, made), bits)
        spent += 8 * len(data)
        kept += int(levels.sum()) * (N // LEVELS)
    # Each bit taken by itself is even: only the context tells anything.
    assert spent < 0.85 * kept


def test_maps_are_trained_too():
    maps = [levels for _, levels in smooth_codes(8, 2)]
    made = prior.export_map(prior.train_map(maps, LEVELS, steps=100, seed=0), maps, LEVELS)
    levels = smooth_codes(1, 9)[0][1]
    data = code.encode_map(levels, LEVELS, made)
    np.testing.assert_array_equal(code.decode_map(data, *levels.shape, LEVELS, made), levels)
    assert 8 * len(data) < 0.9 * 4 * levels.size


def test_static_tables_follow_the_counts():
    rng = np.random.default_rng(0)
    codes = [rng.binomial(255, 0.3 + 0.2 * channel, (1, 30, 30)).astype(np.uint8) for channel in range(2)]
    made = prior.static_tables([np.concatenate(codes)])
    tables.check_static_tables(made, 2)
    assert made["static"][0].argmax() == np.bincount(codes[0].reshape(-1), minlength=256).argmax()
    data = code.encode_static(np.concatenate(codes), made)
    assert 8 * len(data) < 6 * 1800  # 8 bits raw


def test_nothing_kept_is_an_error():
    nothing = [(np.zeros((N, 4, 4), np.uint8), np.zeros((4, 4), np.uint8))]
    with pytest.raises(ValueError, match="no bit is kept"):
        prior.train_context(nothing, N, LEVELS, steps=1, seed=0)
