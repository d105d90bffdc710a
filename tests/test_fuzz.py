"""Damaged files with right checksums: nothing but a CodecError comes out, or a picture of the size announced.

The same mutations run for hours with `python tests/fuzz_run.py`; here are the first ones.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import fuzz_mutate
import fuzz_payloads
import fuzz_run
import numpy as np
import pytest

from cwic import bundle, container, flagship, networks, paper
from cwic.areas import Area
from cwic.errors import Corrupt, FormatError, ModelError
from cwic.tiles import from_chunks

N_FILES = 1500
SEEDS = fuzz_run.seeds()


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_PIXELS", fuzz_run.MAX_PIXELS)
    monkeypatch.setattr(networks, "MOST_KEPT", 8)


def test_nothing_but_a_codec_error_comes_out() -> None:
    outcomes = Counter[str]()
    for number in range(N_FILES):
        data = fuzz_mutate.mutated(SEEDS[number % len(SEEDS)], SEEDS, np.random.default_rng(number))
        try:
            outcomes[fuzz_run.check(data)] += 1
        except Exception as error:
            error.add_note(f"seed {number}: {data.hex()}")
            raise
    # If the mutations rot, so that all files fail at the door, the test must not go on passing.
    assert outcomes["decoded"] > N_FILES // 50
    assert {"Corrupt", "Truncated", "UnsupportedVersion", "LimitExceeded", "ModelNotFound", "ModelMismatch"} < set(
        outcomes
    )


def test_the_same_seed_gives_the_same_file() -> None:
    for number in range(50):
        first, again = (
            fuzz_mutate.mutated(SEEDS[number % len(SEEDS)], SEEDS, np.random.default_rng(number)) for _ in range(2)
        )
        assert first == again


def test_parts_are_put_together_as_they_were() -> None:
    for data in SEEDS:
        try:
            container.unpack(data)
        except FormatError:
            continue
        parts = fuzz_mutate.take_apart(data)
        assert parts is not None and fuzz_mutate.put_together(parts) == data


def test_symbols_that_no_encoder_wrote_reach_the_networks() -> None:
    """A wrong CRC of the symbols is made right, and the file decodes: what a stranger can do as well."""
    data = (fuzz_run.TESTS / "conformance" / "bad" / "symbols-crc.cwic").read_bytes()
    assert fuzz_run.check(data) == "decoded"
    alpha = (fuzz_run.TESTS / "conformance" / "bad" / "alpha-crc.cwic").read_bytes()
    assert fuzz_run.check(alpha) == "decoded"


@pytest.mark.parametrize("model", ["tiny-autoencoder", "tiny-li2018", "tiny-cwic-refined"])
def test_nothing_but_a_model_error_comes_out_of_a_strangers_tables(model: str) -> None:
    """Tables of other shapes, types and values, each alone: the bundle or the file is refused, or something decoded."""
    loaded = bundle.load(model, fuzz_run.BUNDLES)
    name = {"tiny-cwic-refined": "cwic-refined-rgb-130x70-map"}.get(model, f"{model[5:]}-rgb-33x17")
    data = (fuzz_run.TESTS / "conformance" / "good" / f"{name}.cwic").read_bytes()
    header, chunks = container.unpack(data)
    refused = 0
    for table in sorted(loaded.tables):
        for number in range(12):
            changed = fuzz_payloads.changed_table(loaded.tables[table], np.random.default_rng(number))
            stranger = dataclasses.replace(loaded, tables={**loaded.tables, table: changed})
            try:
                if loaded.kind == "cwic":
                    bounds = flagship.covering(Area(0, 0, header.height, header.width))
                    flagship.decode_symbols(from_chunks(chunks, bounds, header.symbols_crc), stranger)
                else:
                    paper.decode_symbols(chunks, header.height, header.width, stranger)
            except (ModelError, Corrupt):
                refused += 1
    assert refused > 3 * len(loaded.tables)
