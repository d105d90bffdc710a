"""What this package asks of constriction, in Python and under constriction's names: where there is no wheel of it.

docs/format.md, sections 8.1 to 8.3. The bytes are the same; a symbol takes about a microsecond.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 24  # of a part's place
ONE = 65_536  # what probabilities are multiples of, in parts
STATE, WORD = 2**64 - 1, 2**32 - 1


class Categorical:
    """Symbols 0..m-1 with these probabilities [m], multiples of 1/65536."""

    def __init__(self, probabilities: NDArray[np.float64], perfect: bool) -> None:
        assert not perfect, "the format has the other kind"
        frequency = np.rint(probabilities * ONE).astype(np.int64)
        before, m = np.cumsum(frequency) - frequency, len(frequency)
        self.starts: Sequence[int] = [*(before * (2**BITS - m) // ONE + np.arange(m)).tolist(), 2**BITS]


class Uniform:
    """Symbols 0..size-1, equally likely; size a power of two."""

    def __init__(self, size: int) -> None:
        self.starts: Sequence[int] = range(0, 2**BITS + 1, 2**BITS // size)


class Bernoulli:
    """Bits, each with a probability of being 1 of its own, a multiple of 1/65536."""

    def __init__(self, perfect: bool) -> None:
        assert not perfect, "the format has the other kind"


class RangeEncoder:
    """Symbols to words, first in, first out."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._lower, self._range = 0, STATE
        self._is_empty = True

    def encode(self, symbols: NDArray[np.int32], model: Any, probability: NDArray[np.float64] | None = None) -> None:
        """Append symbols [N]. probability: [N], of bits alone."""
        for symbol, starts in zip(symbols.tolist(), _starts(model, len(symbols), probability), strict=True):
            scale = self._range >> BITS
            self._lower += scale * starts[symbol]
            self._range = scale * (starts[symbol + 1] - starts[symbol])
            if self._lower > STATE:
                self._carry()
            if self._range <= WORD:
                self._words.append(self._lower >> 32)
                self._lower = (self._lower << 32) & STATE
                self._range <<= 32
            self._is_empty = False

    def get_compressed(self) -> NDArray[np.uint32]:
        """The words, uint32 [N]; nothing may be appended after it."""
        if not self._is_empty:
            upper = (self._lower + self._range) & STATE
            self._lower += WORD
            if self._lower > STATE:
                self._carry()
            self._words.append(self._lower >> 32)
            if upper >> 32 == self._words[-1]:  # what follows could lead out of the range
                self._words.append(0)
        return np.array(self._words, np.uint32)

    def _carry(self) -> None:
        """Add the bit that lower has too many to the words that are written."""
        self._lower &= STATE
        place = len(self._words) - 1
        while self._words[place] == WORD:
            self._words[place] = 0
            place -= 1
        self._words[place] += 1


class RangeDecoder:
    """The inverse, of words uint32 [N]."""

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._words: list[int] = words.tolist()
        self._taken, self._offset = 0, 0  # offset: point - lower of the document, which never leaves the range
        self._range = STATE
        self._is_empty = True
        for _ in range(2):
            self._offset = self._offset << 32 | self._next()

    def _next(self) -> int:
        self._taken += 1
        return self._words[self._taken - 1] if self._taken <= len(self._words) else 0

    def decode(self, model: Any, of: int | NDArray[np.float64]) -> NDArray[np.int32]:
        """The next symbols, int32 [N]. of: N, or of bits the probability of each. Raises ValueError."""
        count, probability = (of, None) if isinstance(of, int) else (len(of), of)
        found = []
        for starts in _starts(model, count, probability):
            scale = self._range >> BITS
            quantile = self._offset // scale
            if quantile >= 2**BITS:
                raise ValueError("the data was not written with these models")
            symbol = bisect_right(starts, quantile) - 1
            self._offset -= scale * starts[symbol]
            self._range = scale * (starts[symbol + 1] - starts[symbol])
            if self._range <= WORD:
                self._range <<= 32
                self._offset = self._offset << 32 | self._next()
            found.append(symbol)
            self._is_empty = False
        return np.array(found, np.int32)

    def maybe_exhausted(self) -> bool:
        """Whether all words are used up, and what is left of the last ones is what an encoder writes."""
        if self._is_empty:
            return not self._words
        return self._taken >= len(self._words) and self._offset < 2**33 - 1


def _starts(model: Any, count: int, probability: NDArray[np.float64] | None) -> Iterable[Sequence[int]]:
    """Where the parts of each symbol begin, and 2^24, for each of `count` symbols."""
    if not isinstance(model, Bernoulli):
        return [model.starts] * count
    assert probability is not None
    zero = np.rint((1 - probability) * ONE).astype(np.int64) * (2**BITS - 2) // ONE + 1
    return [(0, start, 2**BITS) for start in zero.tolist()]


stream = SimpleNamespace(
    model=SimpleNamespace(Categorical=Categorical, Uniform=Uniform, Bernoulli=Bernoulli),
    queue=SimpleNamespace(RangeEncoder=RangeEncoder, RangeDecoder=RangeDecoder),
)
