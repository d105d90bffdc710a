"""Symbols and integer probabilities <-> bytes, with constriction's range coder (a queue: first in, first out).

Probabilities are integers over 65536, handed over as float64, which holds them exactly; constriction turns them into
its own fixed point by the same arithmetic everywhere. The payload is little-endian 32-bit words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.entropy.tables import PROBABILITY_ONE
from cwic.errors import Corrupt

Integers = NDArray[np.signedinteger[Any]]
SPILL_BITS = 16
# A symbol costs at least 1 - p nats, p being the part of its table's likeliest. In 65536ths of a nat that is no less
# than 65535 - frequency, and this is what a word of 32 bits holds, rounded up.
WORD_HOLDS = 1_453_635


def least_cost(frequency: NDArray[np.integer]) -> int:
    """What every symbol of a table of frequencies over 65536 costs at least, in 65536ths of a nat."""
    return PROBABILITY_ONE - 1 - int(frequency.max())


def check_length(data: bytes, cost: int) -> None:
    """Raise Corrupt for a payload of symbols that cost more than it can hold (docs/format.md, section 8.2).

    A coder reads zeros after the end and decodes any number of symbols from nothing. So this comes before memory is
    taken for them: what announces much has to be of some length. cost: at least, in 65536ths of a nat.
    """
    if cost > (len(data) // 4 + 1) * WORD_HOLDS:  # one more: an encoder writes all words but up to two that are read
        least = 4 * (cost // WORD_HOLDS)
        raise Corrupt(f"code: the payload has {len(data)} bytes; its symbols take at least {least}")


class BitEncoder:
    """Codes bits with a probability each."""

    def __init__(self) -> None:
        constriction = _constriction()
        self._coder: Any = constriction.stream.queue.RangeEncoder()
        self._model: Any = constriction.stream.model.Bernoulli(perfect=False)

    def encode(self, bits: NDArray[np.uint8], probability: NDArray[np.uint16]) -> None:
        """Append bits [N] of 0 or 1; probability [N]: P(bit = 1) times 65536, 1..65535."""
        self._coder.encode(bits.astype(np.int32), self._model, probability / np.float64(PROBABILITY_ONE))

    def finish(self) -> bytes:
        """The payload."""
        return _to_bytes(self._coder.get_compressed())


class BitDecoder:
    """The inverse of BitEncoder. finish() must be called after the last bit."""

    def __init__(self, data: bytes) -> None:
        """Raises Corrupt for a length that is not a multiple of 4."""
        constriction = _constriction()
        self._coder: Any = constriction.stream.queue.RangeDecoder(_to_words(data))
        self._model: Any = constriction.stream.model.Bernoulli(perfect=False)

    def decode(self, probability: NDArray[np.uint16]) -> NDArray[np.int32]:
        """The next bits [N], given P(bit = 1) times 65536 for each. Raises Corrupt."""
        try:
            bits: NDArray[np.int32] = self._coder.decode(self._model, probability / np.float64(PROBABILITY_ONE))
        except (AssertionError, ValueError) as error:
            raise Corrupt(f"code: the coded bits are invalid ({error})") from error
        return bits

    def finish(self) -> None:
        """Raise Corrupt if coded bits are left over."""
        if not self._coder.maybe_exhausted():
            raise Corrupt("code: bytes are left over after the last symbol")


class SymbolEncoder:
    """Codes integers around 0, a run at a time, each run with one table.

    A table of 2 reach + 1 frequencies is for -reach..reach. Its two ends stand for all that lies further out; by how
    much, follows in the order of the symbols after the run, as SPILL_BITS equally likely bits each.
    """

    def __init__(self) -> None:
        self._constriction = constriction = _constriction()
        self._coder: Any = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Integers, frequency: NDArray[np.uint16]) -> None:
        """Append symbols [N], at most reach + 2^SPILL_BITS - 1 in size."""
        reach = len(frequency) // 2
        near = symbols.clip(-reach, reach)
        self._coder.encode((near + reach).astype(np.int32), _categorical(self._constriction, frequency))
        spilled = np.abs(symbols[np.abs(near) == reach]) - reach
        if len(spilled):
            self._coder.encode(spilled.astype(np.int32), self._constriction.stream.model.Uniform(1 << SPILL_BITS))

    def finish(self) -> bytes:
        """The payload."""
        return _to_bytes(self._coder.get_compressed())


class SymbolDecoder:
    """The inverse of SymbolEncoder. finish() must be called after the last run."""

    def __init__(self, data: bytes) -> None:
        """Raises Corrupt for a length that is not a multiple of 4."""
        self._constriction = constriction = _constriction()
        self._coder: Any = constriction.stream.queue.RangeDecoder(_to_words(data))
        self._data, self._cost = data, 0

    def decode(self, count: int, frequency: NDArray[np.uint16]) -> NDArray[np.int32]:
        """The next `count` symbols. Raises Corrupt."""
        self._cost += count * least_cost(frequency)
        check_length(self._data, self._cost)
        reach = len(frequency) // 2
        try:
            symbols = self._coder.decode(_categorical(self._constriction, frequency), count) - np.int32(reach)
            ends = np.flatnonzero(np.abs(symbols) == reach)
            if len(ends):
                uniform = self._constriction.stream.model.Uniform(1 << SPILL_BITS)
                symbols[ends] += np.sign(symbols[ends]) * self._coder.decode(uniform, len(ends))
        except (AssertionError, ValueError) as error:
            raise Corrupt(f"code: the coded symbols are invalid ({error})") from error
        result: NDArray[np.int32] = symbols
        return result

    def finish(self) -> None:
        """Raise Corrupt if coded bits are left over."""
        if not self._coder.maybe_exhausted():
            raise Corrupt("code: bytes are left over after the last symbol")


def encode_static(symbols: NDArray[np.uint8], frequencies: NDArray[np.uint32]) -> bytes:
    """Payload of symbols [n,N], row by row with that row's frequencies [n,256] over 65536."""
    constriction = _constriction()
    coder: Any = constriction.stream.queue.RangeEncoder()
    for row, frequency in zip(symbols, frequencies, strict=True):
        coder.encode(row.astype(np.int32), _categorical(constriction, frequency))
    return _to_bytes(coder.get_compressed())


def decode_static(data: bytes, count: int, frequencies: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The inverse of encode_static: uint8 [n,count]. Raises Corrupt."""
    constriction = _constriction()
    check_length(data, count * sum(least_cost(frequency) for frequency in frequencies))
    coder: Any = constriction.stream.queue.RangeDecoder(_to_words(data))
    rows = []
    try:
        for frequency in frequencies:
            rows.append(coder.decode(_categorical(constriction, frequency), count).astype(np.uint8))
    except (AssertionError, ValueError) as error:
        raise Corrupt(f"code: the coded symbols are invalid ({error})") from error
    if not coder.maybe_exhausted():
        raise Corrupt("code: bytes are left over after the last symbol")
    return np.stack(rows)


def _constriction() -> Any:
    """The library, or what stands in for it on machines that it has no wheel for, such as Linux on 64-bit ARM."""
    try:
        import constriction  # here, so that importing cwic stays quick
    except ImportError:
        from cwic.entropy import range_coder

        return range_coder
    return constriction


def _categorical(constriction: Any, frequency: NDArray[np.uint16] | NDArray[np.uint32]) -> Any:
    return constriction.stream.model.Categorical(frequency / np.float64(PROBABILITY_ONE), perfect=False)


def _to_bytes(words: NDArray[np.uint32]) -> bytes:
    return words.astype("<u4").tobytes()


def _to_words(data: bytes) -> NDArray[np.uint32]:
    if len(data) % 4:
        raise Corrupt(f"code: found {len(data)} bytes; a multiple of 4 is allowed")
    return np.frombuffer(data, dtype="<u4").astype(np.uint32)
