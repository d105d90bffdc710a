"""One task with one codec in a process of its own, started by peers.py:

    peer_worker.py CODEC prepare PICTURE ...             random weights (CompressAI)
    peer_worker.py CODEC measure BPP RUNS PICTURE ...    seconds in process
    peer_worker.py CODEC encode SOURCE TARGET QUALITY    from file to file: QUALITY as JSON
    peer_worker.py CODEC decode SOURCE TARGET

CODEC is what peer_codecs.from_json takes. The last line printed is a JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from measure import peak_memory, seconds
from peer_codecs import Codec, CompressAI, from_json, read_picture


def main(codec: Codec, task: str, words: list[str]) -> dict[str, Any]:
    """What peers.py wants to know of this task."""
    if task == "prepare":
        assert isinstance(codec, CompressAI), codec
        return codec.prepare([read_picture(Path(path)) for path in words])
    if task == "measure":
        pictures = [measure(codec, Path(path), float(words[0]), int(words[1])) for path in words[2:]]
        return {"pictures": pictures, "versions": codec.versions()}
    source, target = Path(words[0]), Path(words[1])
    if task == "encode":
        codec.encode_file(source, target, json.loads(words[2]))
    else:
        codec.decode_file(source, target)
    return {"peak_mb": peak_memory()}


def measure(codec: Codec, path: Path, bpp: float, runs: int) -> dict[str, Any]:
    """Seconds of every run, after a first one that does not count, for one picture at about this rate."""
    image = read_picture(path)
    quality = quality_for(codec, image, bpp)
    data = codec.encode(image, quality)
    decoded = codec.decode(data)
    if decoded.shape != image.shape:
        raise RuntimeError(f"{path} of {image.shape} comes back as {decoded.shape}")
    return {
        "picture": path.name, "width": image.shape[1], "height": image.shape[0], "quality": quality,
        "n_bytes": len(data), "bpp": bits_per_pixel(data, image),
        "encode_s": [seconds(lambda: codec.encode(image, quality)) for _ in range(runs)],
        "decode_s": [seconds(lambda: codec.decode(data)) for _ in range(runs)],
    }  # fmt: skip


def quality_for(codec: Codec, image: Any, bpp: float) -> int | None:
    """The highest quality whose file is not above the rate, or the lowest if none is; None if there is one rate."""
    if (allowed := codec.qualities()) is None:
        return None
    low, high = allowed[0], allowed[1] + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = bits_per_pixel(codec.encode(image, middle), image) <= bpp
        low, high = (middle, high) if fits else (low, middle)
    return low


def bits_per_pixel(data: bytes, image: Any) -> float:
    return 8 * len(data) / (image.shape[0] * image.shape[1])


if __name__ == "__main__":
    print(json.dumps(main(from_json(sys.argv[1]), sys.argv[2], sys.argv[3:])))
