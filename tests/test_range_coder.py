"""The range coder in Python writes what constriction writes, reads what it reads, and refuses what it refuses."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from test_flagship import BUNDLES, IMAGE

import cwic
from cwic.entropy import coder, range_coder

constriction = pytest.importorskip("constriction")


def runs(random: np.random.Generator) -> list[tuple[str, Any, np.ndarray, np.ndarray | None]]:
    """Up to five runs of symbols: (name of the model, its argument, symbols, of bits the probabilities)."""
    made: list[tuple[str, Any, np.ndarray, np.ndarray | None]] = []
    for _ in range(random.integers(6)):
        n = int(random.choice([0, 1, 2, 5, 50, 400]))
        match random.integers(3):
            case 0:
                share = np.floor(random.dirichlet(np.full(random.integers(2, 40), 0.1)) * 60_000).clip(1)
                share[share.argmax()] += 65_536 - share.sum()
                made.append(("Categorical", share / 65_536, random.choice(len(share), n, p=share / 65_536), None))
            case 1:
                made.append(("Uniform", 65_536, random.integers(0, 65_536, n), None))
            case 2:
                probability = random.choice([1, 2, 100, 32_768, 60_000, 65_535], n) / 65_536
                made.append(("Bernoulli", None, random.random(n) < probability, probability))
    return made


def model(library: Any, name: str, argument: Any) -> Any:
    made = getattr(library.stream.model, name)
    return made(argument) if name == "Uniform" else made(*([] if argument is None else [argument]), perfect=False)


@pytest.mark.parametrize("seed", range(200))
def test_words_and_symbols_are_the_same(seed: int) -> None:
    coded, words = runs(np.random.default_rng(seed)), []
    for library in (constriction, range_coder):
        encoder = library.stream.queue.RangeEncoder()
        for name, argument, symbols, probability in coded:
            more = () if probability is None else (probability,)
            encoder.encode(symbols.astype(np.int32), model(library, name, argument), *more)
        words.append(encoder.get_compressed())
    np.testing.assert_array_equal(*words)
    decoder = range_coder.RangeDecoder(words[0])
    for name, argument, symbols, probability in coded:
        found = decoder.decode(model(range_coder, name, argument), len(symbols) if probability is None else probability)
        np.testing.assert_array_equal(found, symbols)
    assert decoder.maybe_exhausted()


@pytest.mark.parametrize("seed", range(200))
def test_what_no_encoder_wrote_is_treated_the_same(seed: int) -> None:
    random = np.random.default_rng(seed)
    words = random.integers(2**32, size=random.integers(30), dtype=np.uint32)
    if seed % 2:
        words[random.random(len(words)) < 0.5] = random.choice([0, 2**32 - 1])
    table = np.array([1, 65_534, 1] if seed % 3 else [20_000, 25_536, 20_000]) / 65_536
    count, outcomes = int(random.integers(100)), []
    for library in (constriction, range_coder):
        decoder = library.stream.queue.RangeDecoder(words)
        try:
            found = decoder.decode(model(library, "Categorical", table), count).tolist()
            outcomes.append((found, decoder.maybe_exhausted()))
        except (AssertionError, ValueError):
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", ["tiny-autoencoder", "tiny-li2018", "tiny-cwic-refined"])
def test_files_are_the_same_without_constriction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = cwic.encode(IMAGE, model=name, models_dir=BUNDLES)
    picture = cwic.decode(data, models_dir=BUNDLES)
    monkeypatch.setitem(sys.modules, "constriction", None)  # importing it fails then
    assert coder._constriction() is range_coder
    assert cwic.encode(IMAGE, model=name, models_dir=BUNDLES) == data
    np.testing.assert_array_equal(cwic.decode(data, models_dir=BUNDLES), picture)
