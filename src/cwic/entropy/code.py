"""The coded planes: code bits under the importance map, the map itself, and the autoencoder's symbols.

Encoder and decoder share positions, contexts and network; the encoder knows all bits and evaluates them in large
pieces, the decoder one wavefront at a time. Integer arithmetic makes the results the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic.entropy import coder
from cwic.entropy.context import CHUNK, ContextNetwork, Ints, Positions, Volume, positions_in_order
from cwic.entropy.tables import Tables, check_context_tables, check_static_tables
from cwic.errors import Corrupt

Bits = NDArray[np.uint8]


def encode_code(bits: Bits, levels: Bits, n: int, n_levels: int, tables: Tables) -> bytes:
    """Payload of the kept bits: bits uint8 [n,h,w] of 0 or 1, levels uint8 [h,w] in 0..L-1. Raises ModelError."""
    check_context_tables(tables, "code", n, n_levels)
    return _encode(bits, _kept(levels, n, n_levels), levels, ContextNetwork(tables, "code"))


def decode_code(data: bytes, levels: Bits, n: int, n_levels: int, tables: Tables) -> Bits:
    """The inverse of encode_code: uint8 [n,h,w], 0 where masked. Raises Corrupt, ModelError."""
    check_context_tables(tables, "code", n, n_levels)
    return _decode(data, _kept(levels, n, n_levels), levels, ContextNetwork(tables, "code"))


def encode_map(levels: Bits, n_levels: int, tables: Tables) -> bytes:
    """Payload of the importance map: levels uint8 [h,w] in 0..L-1, as bit planes, most significant first."""
    n_planes = (n_levels - 1).bit_length()
    check_context_tables(tables, "map", n_planes, 1)
    planes = map_planes(levels, n_levels)
    return _encode(planes, np.ones(planes.shape, bool), np.zeros_like(levels), ContextNetwork(tables, "map"))


def decode_map(data: bytes, h: int, w: int, n_levels: int, tables: Tables) -> Bits:
    """The inverse of encode_map: uint8 [h,w]. Raises Corrupt, ModelError."""
    n_planes = (n_levels - 1).bit_length()
    check_context_tables(tables, "map", n_planes, 1)
    zeros = np.zeros((h, w), np.uint8)
    planes = _decode(data, np.ones((n_planes, h, w), bool), zeros, ContextNetwork(tables, "map"))
    weights = 1 << np.arange(n_planes - 1, -1, -1)
    # A number of levels that is no power of two leaves codes that no encoder writes.
    levels: Bits = np.minimum((planes * weights[:, None, None]).sum(axis=0), n_levels - 1).astype(np.uint8)
    return levels


def map_planes(levels: Bits, n_levels: int) -> Bits:
    """Bit planes of the map, most significant first: uint8 [bits,h,w] of 0 or 1."""
    shifts = np.arange((n_levels - 1).bit_length() - 1, -1, -1, dtype=np.uint8)
    planes: Bits = (levels[None] >> shifts[:, None, None]) & np.uint8(1)
    return planes


def encode_static(symbols: Bits, tables: Tables) -> bytes:
    """Payload of the plain autoencoder's symbols uint8 [n,h,w]. Raises ModelError."""
    check_static_tables(tables, len(symbols))
    return coder.encode_static(symbols.reshape(len(symbols), -1), tables["static"])


def decode_static(data: bytes, n: int, h: int, w: int, tables: Tables) -> Bits:
    """The inverse of encode_static: uint8 [n,h,w]. Raises Corrupt, ModelError."""
    check_static_tables(tables, n)
    return coder.decode_static(data, h * w, tables["static"]).reshape(n, h, w)


def _kept(levels: Bits, n: int, n_levels: int) -> NDArray[np.bool_]:
    """The mask: bool [n,h,w], the leading (n / L) q channels of each position."""
    kept: NDArray[np.bool_] = np.arange(n)[:, None, None] < levels.astype(np.int64)[None] * (n // n_levels)
    return kept


def context_indices(bits: Bits, kept: NDArray[np.bool_], levels: Bits, network: ContextNetwork) -> tuple[Ints, Bits]:
    """Table index and bit of every kept position in coding order; all bits are known (encoder, and training)."""
    positions = positions_in_order(kept)
    volume = Volume(*kept.shape)
    place = volume.place(positions)
    coded = bits[positions.k, positions.i, positions.j]
    volume.write(place, coded)
    index = np.empty(len(place), np.int64)
    for start in range(0, len(place), CHUNK):
        part = slice(start, start + CHUNK)
        index[part] = network.index(volume.contexts(place[part]), _bias(network, positions, levels, part))
    return index, coded


def _encode(bits: Bits, kept: NDArray[np.bool_], levels: Bits, network: ContextNetwork) -> bytes:
    index, coded = context_indices(bits, kept, levels, network)
    encoder = coder.BitEncoder()
    encoder.encode(coded, network.probability_of(index))
    return encoder.finish()


def _decode(data: bytes, kept: NDArray[np.bool_], levels: Bits, network: ContextNetwork) -> Bits:
    coder.check_length(data, int(np.count_nonzero(kept)) * network.least_cost())
    positions = positions_in_order(kept)
    volume = Volume(*kept.shape)
    place = volume.place(positions)
    decoder = coder.BitDecoder(data)
    found = np.empty(len(place), np.uint8)
    for wave in positions.wavefronts():
        index = network.index(volume.contexts(place[wave]), _bias(network, positions, levels, wave))
        bits = decoder.decode(network.probability_of(index))
        volume.write(place[wave], bits)
        found[wave] = bits
    decoder.finish()
    if data and not len(place):
        raise Corrupt(f"code: found {len(data)} bytes where nothing is coded")
    code = np.zeros(kept.shape, np.uint8)
    code[positions.k, positions.i, positions.j] = found
    return code


def _bias(network: ContextNetwork, positions: Positions, levels: Bits, part: slice) -> NDArray[np.float32]:
    return network.bias(positions.k[part], levels[positions.i[part], positions.j[part]])
