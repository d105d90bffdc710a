"""Bundles: found by id and hash, verified file by file, and refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cwic import bundle
from cwic.errors import ModelError, ModelMismatch, ModelNotFound

BUNDLES = Path(__file__).parent / "data" / "bundles"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A tiny bundle that a test may damage."""
    return shutil.copytree(BUNDLES / "tiny-li2018", tmp_path / "models" / "tiny-li2018")


def change_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "model.json").read_text())
    change(manifest)
    (path / "model.json").write_text(json.dumps(manifest))


def change_tables(path: Path, write: Callable[[Path], None]) -> None:
    """Other tables, with the manifest made right again."""
    write(path / "tables.npz")
    digest = hashlib.sha256((path / "tables.npz").read_bytes()).hexdigest()
    change_manifest(path, lambda m: m["files"].update({"tables.npz": digest}))


def test_load_reads_the_manifest_and_the_tables() -> None:
    loaded = bundle.load("tiny-li2018", BUNDLES)
    assert (loaded.id, loaded.kind, loaded.stride) == ("tiny-li2018", "li2018", 8)
    assert (loaded.channels, loaded.levels, loaded.target_bpp) == (8, 4, 1.0)
    assert loaded.path == BUNDLES / "tiny-li2018" and len(loaded.hash) == 32
    assert loaded.tables and all(table.dtype.kind in "iu" for table in loaded.tables.values())


def test_the_hash_covers_all_but_the_training(copied: Path) -> None:
    original = bundle.load_directory(copied).hash
    manifest = json.loads((copied / "model.json").read_text())
    named = {key: manifest[key] for key in manifest if key != "training"}
    canonical = json.dumps(named, sort_keys=True, separators=(",", ":")).encode()
    assert original == hashlib.sha256(canonical).digest()
    change_manifest(copied, lambda m: m.update(training={"hours": 3}))
    assert bundle.load_directory(copied).hash == original
    change_manifest(copied, lambda m: m.update(target_bpp=0.5))
    assert bundle.load_directory(copied).hash != original


def test_load_by_hash(copied: Path) -> None:
    wanted = bundle.load_directory(copied).hash
    assert bundle.load("tiny-li2018", copied.parent, wanted[:8]).path == copied
    with pytest.raises(ModelMismatch, match=r"needs the model 'tiny-li2018' with hash 0000000000000000.*install"):
        bundle.load("tiny-li2018", copied.parent, bytes(8))


def test_the_package_is_searched_after_the_directory(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "PACKAGE_MODELS", BUNDLES)
    change_manifest(copied, lambda m: m.update(target_bpp=0.5))
    other, packaged = bundle.load_directory(copied), bundle.load("tiny-li2018")
    assert packaged.path.parent == BUNDLES
    assert bundle.load("tiny-li2018", copied.parent).path == copied
    assert bundle.load("tiny-li2018", copied.parent, other.hash[:8]).path == copied
    assert bundle.load("tiny-li2018", copied.parent, packaged.hash[:8]).path.parent == BUNDLES
    assert bundle.load("tiny-autoencoder", copied.parent).path.parent == BUNDLES
    found = bundle.available(copied.parent)
    assert [(b.id, b.path.parent) for b in found] == [
        ("tiny-autoencoder", BUNDLES),
        ("tiny-cwic", BUNDLES),
        ("tiny-cwic-refined", BUNDLES),
        ("tiny-li2018", copied.parent),
    ]


def test_the_variables_folders_come_between_the_directory_and_the_package(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, later = (shutil.copytree(copied, tmp_path / name / "tiny-li2018") for name in ("given", "later"))
    change_manifest(copied, lambda m: m.update(target_bpp=0.5))
    change_manifest(later, lambda m: m.update(target_bpp=0.25))
    monkeypatch.setattr(bundle, "PACKAGE_MODELS", BUNDLES)
    monkeypatch.setenv("CWIC_MODELS", os.pathsep.join([str(copied.parent), "", str(later.parent)]))
    assert bundle.load("tiny-li2018").path == copied
    assert bundle.load("tiny-li2018", given.parent).path == given
    assert bundle.load("tiny-li2018", None, bundle.load_directory(later).hash[:8]).path == later
    assert bundle.load("tiny-li2018", None, bundle.load_directory(given).hash[:8]).path.parent == BUNDLES
    assert bundle.load("tiny-autoencoder").path.parent == BUNDLES
    found = {b.id: b.path.parent for b in bundle.available()}
    assert found["tiny-li2018"] == copied.parent and found["tiny-autoencoder"] == BUNDLES
    monkeypatch.setenv("CWIC_MODELS", "")
    assert bundle.load("tiny-li2018").path.parent == BUNDLES


def test_folders_that_do_not_exist_hold_no_bundles_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "PACKAGE_MODELS", BUNDLES)
    monkeypatch.setenv("CWIC_MODELS", "no-such-a" + os.pathsep + "no-such-b")
    assert bundle.load("tiny-li2018", Path("no-such-c")).path.parent == BUNDLES
    assert len(bundle.available(Path("no-such-c"))) == 4
    with pytest.raises(ModelNotFound, match=r"looked in no-such-c, no-such-a, no-such-b, .*bundles.*CWIC_MODELS"):
        bundle.load("none", Path("no-such-c"))


@pytest.mark.parametrize("model_id", ["none", "", "..", "../bundles/tiny-li2018", "/etc", "a\\b", "tiny-li2018\n"])
def test_not_found(model_id: str) -> None:
    with pytest.raises(ModelNotFound, match=r"is not installed|is no model id"):
        bundle.load(model_id, BUNDLES)


def test_a_directory_of_another_name(copied: Path) -> None:
    moved = copied.rename(copied.with_name("renamed"))
    assert bundle.load_directory(moved).id == "tiny-li2018"
    with pytest.raises(ModelMismatch, match=r"holds the model 'tiny-li2018'; .* named after its id"):
        bundle.load("renamed", moved.parent)


@pytest.mark.parametrize("name", bundle.FILES["li2018"])
def test_an_altered_or_missing_file(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(ModelMismatch, match=f"{name} is not the file its manifest describes"):
        bundle.load("tiny-li2018", copied.parent)
    (copied / name).unlink()
    with pytest.raises(ModelError, match=f"{name} cannot be read"):
        bundle.load("tiny-li2018", copied.parent)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": 1}', "[" * 100_000, "\udcff"])
def test_a_manifest_that_is_none(copied: Path, text: str) -> None:
    (copied / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"model\.json"):
        bundle.load_directory(copied)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "format must be 1"),
        ("id", "../x", "id must be"),
        ("id", 3, "id is 3, which is of the wrong type"),
        ("kind", "vae", "kind is 'vae'; allowed are"),
        ("stride", 16, "stride must be 8"),
        ("stride", True, "stride is True"),
        ("channels", 0, "channels must be"),
        ("channels", 2**40, "channels must be"),
        ("target_bpp", 10**400, "target_bpp must be"),  # too large for a float
        ("target_bpp", float("nan"), "target_bpp must be"),
        ("levels", 3, "levels must be 2 to 256 and divide channels"),
        ("levels", 0, "levels must be 2 to 256"),
        ("kind", "autoencoder", "levels must be 0"),
        ("files", {"encoder.onnx": ""}, "files must give the SHA-256"),
        ("extra", 1, "exactly the keys"),
    ],
)
def test_a_manifest_with_a_wrong_field(copied: Path, key: str, value: object, message: str) -> None:
    manifest = json.loads((copied / "model.json").read_text()) | {key: value}
    with pytest.raises(ModelError, match=message):
        bundle.write_manifest(copied, manifest)
    (copied / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=message):
        bundle.load_directory(copied)


def test_tables_are_integers_and_never_pickles(copied: Path) -> None:
    change_tables(copied, lambda path: np.savez(path, a=np.zeros(3)))
    with pytest.raises(ModelError, match="a is of float64; only integer arrays"):
        bundle.load_directory(copied)
    change_tables(copied, lambda path: np.savez(path, a=np.array([{}], dtype=object)))
    with pytest.raises(ModelError, match=r"tables\.npz cannot be read"):
        bundle.load_directory(copied)
    change_tables(copied, lambda path: path.write_bytes(b"PK\x03\x04") and None)
    with pytest.raises(ModelError, match=r"tables\.npz cannot be read"):
        bundle.load_directory(copied)


def test_available_of_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "PACKAGE_MODELS", tmp_path / "none")
    monkeypatch.delenv("CWIC_MODELS", raising=False)
    assert bundle.available(tmp_path) == bundle.available() == []
