"""What the decoder asks of constriction, in Python: for machines that constriction has no wheel for.

Section 8.2 and 8.3 of docs/format.md by docs/educational_decoder.py, under constriction's names. It decodes only, and
some hundred times more slowly; `tests/exactness.py --python-coder` is its user.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _educational() -> ModuleType:
    path = Path(__file__).parents[1] / "docs" / "educational_decoder.py"
    spec = importlib.util.spec_from_file_location("educational_decoder", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # NamedTuples look themselves up
    spec.loader.exec_module(module)
    return module


_EDUCATIONAL: Any = _educational()


class Categorical:
    """Symbols 0..m-1 with these probabilities [m], multiples of 1/65536."""

    def __init__(self, probabilities: NDArray[np.float64], perfect: bool) -> None:
        assert not perfect
        self.starts: Sequence[int] = _parts(probabilities)


class Uniform:
    """Symbols 0..size-1, equally likely; size a power of two."""

    def __init__(self, size: int) -> None:
        self.starts: Sequence[int] = range(0, 2**24 + 1, 2**24 // size)


class Bernoulli:
    """Bits; each brings its own probability of being 1, a multiple of 1/65536."""

    def __init__(self, perfect: bool) -> None:
        assert not perfect


class RangeDecoder:
    """constriction.stream.queue.RangeDecoder of words uint32 [N]."""

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._coder = _EDUCATIONAL.RangeDecoder(words.astype("<u4").tobytes())

    def decode(self, model: Any, of: Any) -> NDArray[np.int32]:
        """int32 [N]. of: N, or for bits the probability of 1 for each, float64 [N]."""
        if isinstance(model, Bernoulli):
            starts = [_parts(np.array([1 - p, p])) for p in of]
        else:
            starts = [model.starts] * of
        try:
            return np.array([self._coder.symbol(each) for each in starts], np.int32)
        except _EDUCATIONAL.Bad as error:
            raise AssertionError(str(error)) from error

    def maybe_exhausted(self) -> bool:
        try:
            self._coder.finish()
        except _EDUCATIONAL.Bad:
            return False
        return True


def _parts(probabilities: NDArray[np.float64]) -> list[int]:
    parts: list[int] = _EDUCATIONAL.parts((probabilities * 65536).astype(int).tolist())
    return parts


stream = SimpleNamespace(
    model=SimpleNamespace(Categorical=Categorical, Uniform=Uniform, Bernoulli=Bernoulli),
    queue=SimpleNamespace(RangeDecoder=RangeDecoder),
)
