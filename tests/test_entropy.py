"""The entropy room: exact integers, wavefronts, round trips, bad tables and bad bytes."""

import numpy as np
import pytest
from context_tables import context_tables

from cwic.entropy import code, coder, context, tables
from cwic.errors import Corrupt, ModelError

SHAPES = [(64, 16), (128, 32)]


def all_tables(n, levels, seed=0):
    return context_tables(n, levels, seed, 32)


def random_code(n, levels, h, w, rng, share=0.5):
    """Bits (0 where masked) and a map, both random."""
    importance = rng.integers(0, levels, (h, w)).astype(np.uint8)
    kept = np.arange(n)[:, None, None] < importance.astype(int)[None] * (n // levels)
    return (rng.random((n, h, w)) < share).astype(np.uint8) * kept, importance, kept


@pytest.mark.parametrize(("n", "levels"), SHAPES)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 3), (12, 16)])
def test_round_trip(n, levels, size):
    made = all_tables(n, levels)
    bits, importance, _ = random_code(n, levels, *size, np.random.default_rng(sum(size)))
    data = code.encode_code(bits, importance, n, levels, made)
    np.testing.assert_array_equal(code.decode_code(data, importance, n, levels, made), bits)
    data = code.encode_map(importance, levels, made)
    np.testing.assert_array_equal(code.decode_map(data, *size, levels, made), importance)


def test_nothing_kept_costs_nothing():
    made = all_tables(64, 16)
    nothing = np.zeros((64, 3, 4), np.uint8)
    importance = np.zeros((3, 4), np.uint8)
    assert code.encode_code(nothing, importance, 64, 16, made) == b""
    np.testing.assert_array_equal(code.decode_code(b"", importance, 64, 16, made), nothing)


def test_every_context_symbol_comes_earlier():
    """A wavefront's bits may only look at wavefronts before it, or decoding could not run them together."""
    waves = [context.WAVE_PLANE * k + context.WAVE_ROW * i + j for k, i, j in context.OFFSETS]
    assert max(waves) < 0
    assert len(context.OFFSETS) == len(set(context.OFFSETS)) == tables.CONTEXT_SIZE == 87


def test_contexts_are_the_cuboid():
    """Contexts against the definition, written out with loops over the whole volume."""
    rng = np.random.default_rng(3)
    bits, _, kept = random_code(64, 16, 6, 5, rng)
    signs = (2 * bits.astype(int) - 1) * kept
    positions = context.positions_in_order(kept)
    volume = context.Volume(*kept.shape)
    place = volume.place(positions)
    volume.write(place, bits[positions.k, positions.i, positions.j])
    contexts = volume.contexts(place)
    for row in rng.permutation(len(place))[:200]:
        k, i, j = (int(axis[row]) for axis in (positions.k, positions.i, positions.j))
        expected = []
        for dk in (-3, -2, -1, 0):
            for di in range(-2, 3):
                for dj in range(-2, 3):
                    if dk == 0 and (di, dj) >= (0, 0):
                        continue
                    a, b, c = k + dk, i + di, j + dj
                    inside = 0 <= a < 64 and 0 <= b < 6 and 0 <= c < 5
                    expected.append(signs[a, b, c] if inside else 0)
        np.testing.assert_array_equal(contexts[row], expected)


def reference_index(made, prefix, contexts, planes, levels):
    """The network in Python's own integers, as format.md states it."""
    table = {name[len(prefix) + 1 :]: values.astype(object) for name, values in made.items() if name.startswith(prefix)}
    out = []
    for row, plane, level in zip(contexts.astype(int).tolist(), planes, levels, strict=True):
        first = [
            sum(w * x for w, x in zip(weights, row, strict=True)) + b + c
            for weights, b, c in zip(
                table["weight1"], table["bias_plane"][plane], table["bias_level"][level], strict=True
            )
        ]
        hidden = [min(max(int(v) >> 2, 0), 127) for v in first]
        second = [
            sum(w * x for w, x in zip(weights, hidden, strict=True)) + b
            for weights, b in zip(table["weight2"], table["bias2"], strict=True)
        ]
        hidden = [min(max(int(v) >> 6, 0), 127) for v in second]
        last = sum(w * x for w, x in zip(table["weight3"], hidden, strict=True)) + table["bias3"][0]
        out.append(min(max((int(last) >> 6) + 128, 0), 255))
    return out


@pytest.mark.parametrize("extreme", [False, True])
def test_index_is_exact_in_any_order_and_batch(extreme):
    rng = np.random.default_rng(5)
    made = all_tables(64, 16, seed=7)
    if extreme:  # the largest sums that the check lets through
        made["code_weight1"] = rng.choice(np.array([-127, 127], np.int8), made["code_weight1"].shape)
        made["code_weight2"] = rng.choice(np.array([-127, 127], np.int8), made["code_weight2"].shape)
        tables.check_context_tables(made, "code", 64, 16)
    contexts = rng.integers(-1, 2, (500, 87)).astype(np.float32)
    planes, levels = rng.integers(0, 64, 500), rng.integers(0, 16, 500)
    network = context.ContextNetwork(made, "code")
    whole = network.index(contexts, network.bias(planes, levels))
    assert whole.tolist() == reference_index(made, "code", contexts, planes, levels)
    assert len(set(whole.tolist())) > 3
    order = rng.permutation(500)
    shuffled = network.index(contexts[order], network.bias(planes[order], levels[order]))
    np.testing.assert_array_equal(shuffled, whole[order])
    for start in range(0, 500, 7):
        part = slice(start, start + 7)
        np.testing.assert_array_equal(
            network.index(contexts[part], network.bias(planes[part], levels[part])), whole[part]
        )


def test_cost_is_within_one_percent_of_the_ideal():
    rng = np.random.default_rng(9)
    probability = rng.integers(1, 65536, 200_000).astype(np.uint16)
    bits = (rng.random(200_000) < probability / 65536).astype(np.uint8)
    encoder = coder.BitEncoder()
    encoder.encode(bits, probability)
    share = probability / 65536
    ideal = -np.log2(np.where(bits == 1, share, 1 - share)).sum()
    assert ideal <= 8 * len(encoder.finish()) < 1.01 * ideal + 64


def test_extreme_probabilities_round_trip():
    probability = np.array([1, 65535] * 500, np.uint16)
    bits = np.array([1, 0] * 500, np.uint8)  # always the unlikely one
    encoder = coder.BitEncoder()
    encoder.encode(bits, probability)
    decoder = coder.BitDecoder(encoder.finish())
    np.testing.assert_array_equal(decoder.decode(probability), bits)
    decoder.finish()


def test_damaged_payloads_are_refused_or_keep_their_shape():
    """The container's CRC is the guard; here a damaged payload must only not break anything."""
    made = all_tables(64, 16)
    rng = np.random.default_rng(11)
    bits, importance, _ = random_code(64, 16, 5, 6, rng)
    data = code.encode_code(bits, importance, 64, 16, made)
    refused = 0
    for trial in range(120):
        damaged = bytearray(data)
        if trial % 3 == 0:
            damaged = damaged[: int(rng.integers(0, len(data)))]
        else:
            damaged[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        try:
            decoded = code.decode_code(bytes(damaged), importance, 64, 16, made)
            assert decoded.shape == bits.shape and decoded.max() <= 1
        except Corrupt:
            refused += 1
    assert refused > 30  # lengths that are no multiple of 4 at the least


def test_left_over_bytes_are_noticed():
    made = all_tables(64, 16)
    bits, importance, _ = random_code(64, 16, 5, 6, np.random.default_rng(1))
    data = code.encode_code(bits, importance, 64, 16, made)
    with pytest.raises(Corrupt, match="left over"):
        code.decode_code(data + b"\x01\x02\x03\x04" * 4, importance, 64, 16, made)
    with pytest.raises(Corrupt, match="multiple of 4"):
        code.decode_code(data + b"\x00", importance, 64, 16, made)


def broken(name, change):
    made = all_tables(64, 16)
    made[name] = change(made[name])
    return made


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("code_weight2", lambda t: t.astype(np.int16), "int16"),
        ("code_weight1", lambda t: t[:, :86], "shape"),
        ("code_bias_plane", lambda t: t[:63], "shape"),
        ("code_probability", lambda t: t * np.uint16(0), "holds 0"),
        ("code_bias2", lambda t: t + np.int32(2**24), "can reach"),
        ("code_bias3", lambda t: t + np.int32(2**24), "can reach"),
    ],
)
def test_bad_tables_are_named(name, change, message):
    with pytest.raises(ModelError, match=message) as caught:
        tables.check_context_tables(broken(name, change), "code", 64, 16)
    assert "code_" in str(caught.value)


def test_missing_table_is_named():
    made = all_tables(64, 16)
    del made["map_weight3"]
    with pytest.raises(ModelError, match="map_weight3 is missing"):
        tables.check_context_tables(made, "map", 4, 1)


def static(n, rng):
    frequency = rng.integers(1, 300, (n, 256)).astype(np.int64)
    frequency[:, 0] += 65536 - frequency.sum(axis=1)
    return {"static": frequency.astype(np.uint32)}


def test_static_round_trip_and_worst_tables():
    rng = np.random.default_rng(0)
    made = static(3, rng)
    made["static"][1] = 1
    made["static"][1, 77] = 65536 - 255  # nearly all mass on one symbol, and every symbol must still be codable
    symbols = rng.integers(0, 256, (3, 9, 31)).astype(np.uint8)
    data = code.encode_static(symbols, made)
    np.testing.assert_array_equal(code.decode_static(data, 3, 9, 31, made), symbols)
    with pytest.raises(Corrupt, match="left over"):
        code.decode_static(data + b"\x01\x02\x03\x04" * 4, 3, 9, 31, made)


def test_static_tables_are_checked():
    made = static(2, np.random.default_rng(0))
    made["static"][0, 5] += 1
    with pytest.raises(ModelError, match="65536"):
        tables.check_static_tables(made, 2)
    with pytest.raises(ModelError, match="shape"):
        tables.check_static_tables(static(2, np.random.default_rng(0)), 3)
