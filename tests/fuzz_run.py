"""Decodes damaged files until something else than a CodecError comes out; with atheris, guided by coverage.

    python tests/fuzz_run.py --seconds 600            mutations alone, of seeds that count up: nothing to install
    python tests/fuzz_run.py --atheris -max_total_time=600 [CORPUS]    pip install atheris; options are libFuzzer's

What fails is written to failed-<SHA-256>.cwic in the current directory (libFuzzer: crash-<SHA-1>), and belongs into
tests/conformance/bad once it is understood. The targets and their limits are `check`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter
from pathlib import Path

import fuzz_mutate
import numpy as np

TESTS = Path(__file__).parent
BUNDLES = TESTS / "data" / "bundles"
# Of a picture here: enough for every tile and every wavefront, and decoded in milliseconds. What larger ones cost is
# test_limits.py's.
MAX_PIXELS = 2**17
MOST_REPAIRS = 30


def seeds() -> list[bytes]:
    """The conformance files, good and bad, in order of name: bad ones are where something was found before."""
    return [path.read_bytes() for path in sorted((TESTS / "conformance").glob("*/*.cwic"))]


def check(data: bytes, repairs: int = MOST_REPAIRS) -> str:
    """What becomes of a file: the error's name, or "decoded". Raises what no caller expects.

    Asked are `container.unpack`, `cwic.inspect`, `codec.metadata`, `codec.decode_preview`, `cwic.decode`, and of a file
    that decodes a region, and what it is made of. If only a CRC of what was decoded is wrong it is made right and the
    file decoded again: a stranger who makes files can do that as well, and so the networks see symbols that no encoder
    wrote.
    """
    outcome, message = _outcome(data)
    fixed = fuzz_mutate.repaired(data, message)
    if fixed is not None and fixed != data and repairs:  # tiles that announce the same CRC would never be done
        return check(fixed, repairs - 1)
    return outcome


def _outcome(data: bytes) -> tuple[str, str]:
    """(the error's name or "decoded", its message)."""
    import cwic
    from cwic import codec, container
    from cwic.errors import CodecError, FormatError

    for ask in (container.unpack, codec.metadata):
        try:
            ask(data)
        except FormatError:
            pass
    try:
        info = cwic.inspect(data)
    except FormatError as error:
        refused: FormatError | None = error
    else:
        refused = None
    try:
        image = cwic.decode(data, models_dir=BUNDLES)
    except CodecError as error:
        assert refused is None or type(refused) is type(error), (refused, error)
        return type(error).__name__, str(error)
    assert refused is None, refused
    channels = info.colours + info.has_alpha
    assert image.dtype == np.uint8
    assert image.shape == (info.height, info.width) + ((channels,) if channels > 1 else ()), (image.shape, info)
    assert cwic.decode(data, models_dir=BUNDLES, region=(info.width - 1, 0, 1, 1)).shape[:2] == (1, 1)
    try:
        assert codec.decode_preview(data, models_dir=BUNDLES).shape[:2] <= image.shape[:2]
    except FormatError:  # of the preview alone
        assert "pREV" in info.chunks
    if info.has_symbols:
        spent = codec.bits_per_block(data, models_dir=BUNDLES)
        assert np.isfinite(spent).all() and spent.min() >= 0
    return "decoded", ""


def prepare() -> None:
    """Limits for many small files: small pictures, and the networks of all bundles kept."""
    from cwic import container, networks

    container.MAX_PIXELS = MAX_PIXELS
    networks.MOST_KEPT = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="the first seed of the mutations")
    parser.add_argument("--atheris", action="store_true", help="all that follows is for libFuzzer")
    arguments, rest = parser.parse_known_args()
    if arguments.atheris:
        _with_atheris(rest)
        return
    prepare()
    kept, outcomes, end, number = seeds(), Counter[str](), time.monotonic() + arguments.seconds, arguments.first
    while time.monotonic() < end:
        random = np.random.default_rng(number)
        data = fuzz_mutate.mutated(kept[number % len(kept)], kept, random)
        try:
            outcomes[check(data)] += 1
        except Exception:
            Path(f"failed-{hashlib.sha256(data).hexdigest()[:16]}.cwic").write_bytes(data)
            raise
        number += 1
    print(number - arguments.first, "files:", dict(outcomes.most_common()))


def _with_atheris(options: list[str]) -> None:
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["cwic"]):
        import cwic.codec  # noqa: F401  (so that it is instrumented)
    prepare()
    kept = seeds()

    def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
        made = fuzz_mutate.mutated(bytes(data), kept, np.random.default_rng(seed))
        return made[:most_bytes]

    def target(data: bytes) -> None:
        check(data)

    atheris.Setup([sys.argv[0], "-max_len=4096", *options], target, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
