"""Published curves, read from a folder of JSON files: {name: {"bpp": [...], "psnr": [...], "ms_ssim": [...], ...}}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cwic_lab.evaluate.bdrate import QUALITIES


def read_anchors(path: Path) -> dict[str, dict[str, list[float]]]:
    """Curves by name from a JSON file, or from all in a folder (names then begin with the file's, `kodak_curves/vtm`).

    Each has "bpp" and at least one of "psnr" (dB), "ssim" and "ms_ssim", lists of equal length; other keys are
    ignored. Raises ValueError for a file without a single curve, FileNotFoundError.
    """
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        found = {f"{file.stem}/{name}": curve for file in files for name, curve in _curves(file).items()}
    else:
        found = _curves(path)
    if not found:
        raise ValueError(f"{path}: no curve found; a curve has bpp and one of {', '.join(QUALITIES)}, of equal length")
    return found


def _curves(path: Path) -> dict[str, dict[str, list[float]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    named = content.items() if isinstance(content, dict) else []
    return {name: curve for name, entry in named if (curve := _curve(entry))}


def _curve(entry: Any) -> dict[str, list[float]]:
    """The usable lists of an entry; empty where it is no curve."""
    if not isinstance(entry, dict) or not _numbers(entry.get("bpp")):
        return {}
    kept = {key: entry[key] for key in QUALITIES if _numbers(entry.get(key)) and len(entry[key]) == len(entry["bpp"])}
    return {"bpp": entry["bpp"], **kept} if kept else {}


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, int | float) for value in values)
