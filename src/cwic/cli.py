"""The commands: arguments -> calls -> exit code. With demo.py the only place that prints.

Exit codes: 0 done; 1 a CodecError or a file that cannot be read or written (one line on stderr); 2 usage; 130
interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cwic import alpha, bundle, codec, imagefile
from cwic.arguments import parser
from cwic.errors import CodecError, UnsupportedImage
from cwic.importance import AUTO, UNIFORM
from cwic.metadata import Metadata
from cwic.progressbar import ProgressBar

STREAM = Path("-")  # as a file's name: standard input or output
LAB_COMMANDS = ("evaluate", "train", "export", "download")
LAB_NEEDED = 'this command needs the laboratory: pip install "cwic[lab]"'


class UsageError(Exception):
    """The arguments make no sense together; exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    command = COMMANDS[arguments.command]
    subject = getattr(arguments, "input", arguments.command)
    try:
        command(arguments)
        _flush()
    except UsageError as error:
        print(f"cwic: {error}", file=sys.stderr)
        return 2
    except CodecError as error:
        print(f"cwic: {subject}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or subject
        print(f"cwic: {where}: {type(error).__name__}: {error.strerror or error}", file=sys.stderr)
        return 1
    except (ValueError, RuntimeError) as error:  # the laboratory's own; anything else of these types is a bug
        if not (arguments.command in LAB_COMMANDS and _from_laboratory(error)):
            raise
        print(f"cwic: {subject}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # asked for: nothing is to be explained
        return 130
    return 0


def _from_laboratory(error: Exception) -> bool:
    """Whether it is an error that cwic_lab raises on purpose: a type of its own, or a ValueError."""
    return isinstance(error, ValueError) or type(error).__module__.startswith("cwic_lab")


def _output(arguments: argparse.Namespace, suffix: str) -> Path:
    """Where the output goes; that there is room for it is known before the work is done."""
    source: Path = arguments.input
    output: Path = arguments.output or (STREAM if source == STREAM else source.with_suffix(suffix))
    if output != STREAM:
        if os.path.realpath(output) == os.path.realpath(source):
            raise UsageError(f"{output} would overwrite the input; choose another name with -o")
        _check_free(output, arguments.force)
    return output


def _check_free(path: Path, force: bool) -> None:
    """Raise FileExistsError for what would be overwritten without --force, IsADirectoryError for a directory."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if os.path.lexists(path) and not force and not imagefile.is_device(path):
        raise FileExistsError(errno.EEXIST, "exists already; --force overwrites it", str(path))


def _read(path: Path) -> bytes:
    return sys.stdin.buffer.read() if path == STREAM else path.read_bytes()


def _write(path: Path, data: bytes, force: bool) -> None:
    """A file, whole or not at all, or standard output."""
    if path == STREAM:
        _flush(data)
    else:
        _check_free(path, force)  # somebody else may have written it in the meantime
        imagefile.write_bytes(path, data)


def _flush(data: bytes = b"") -> None:
    """Write bytes, and what was printed before, to standard output. Raises OSError that names it."""
    if sys.stdout is None:  # closed by whoever started us, which only matters if there is something to write
        if data:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")
        return
    try:
        if data:
            sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        # What it did not take would be tried again at exit, and fail with another exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error


def _tell(notices: Iterable[str], subject: Path) -> None:
    """What is lost: a line for each, on stderr."""
    for notice in notices:
        print(f"cwic: {subject}: note: {notice}", file=sys.stderr)


def _encode(arguments: argparse.Namespace) -> None:
    output = _output(arguments, ".cwic")
    picture = imagefile.read_picture(_read(arguments.input), str(arguments.input), max_pixels=arguments.max_pixels)
    notices = picture.notices + ([] if arguments.strip else picture.left_out)
    if arguments.strict and notices:
        raise UnsupportedImage(f"{'; '.join(notices)}; --strict allows no such loss")
    _tell(notices, arguments.input)
    importance = arguments.importance
    if importance not in (None, AUTO, UNIFORM):
        importance = imagefile.read_grey(Path(importance))
    with ProgressBar() as progress:
        data = codec.encode(
            picture.pixels, model=arguments.model, quality=arguments.quality, bpp=arguments.bpp, size=arguments.size,
            psnr=arguments.psnr, ms_ssim=arguments.ms_ssim, importance=importance, effort=arguments.effort,
            metadata=Metadata() if arguments.strip else picture.metadata, models_dir=arguments.models,
            max_pixels=arguments.max_pixels, progress=progress,
        )  # fmt: skip
    _write(output, data, arguments.force)
    bpp = 8 * len(data) / (picture.pixels.shape[0] * picture.pixels.shape[1])
    report = f"{output}: {len(data)} bytes, {bpp:.3f} bits per pixel"
    print(report, file=sys.stderr if output == STREAM else sys.stdout)


def _decode(arguments: argparse.Namespace) -> None:
    output = _output(arguments, ".png")
    data, limit = _read(arguments.input), arguments.max_pixels
    metadata = codec.metadata(data, max_pixels=limit)
    if arguments.preview:
        picture = codec.decode_preview(data, models_dir=arguments.models, max_pixels=limit)
    else:
        with ProgressBar() as progress:
            picture = codec.decode(
                data, models_dir=arguments.models, region=arguments.region, max_pixels=limit, progress=progress
            )
    written, notices = imagefile.to_bytes(picture, ".png" if output == STREAM else output.suffix, metadata)
    _tell(notices, output)
    _write(output, written, arguments.force)


def _info(arguments: argparse.Namespace) -> None:
    info = codec.inspect(_read(arguments.input))
    if arguments.json:
        print(json.dumps(dataclasses.asdict(info), indent=1))
        return
    channels = ("grey" if info.colours == 1 else "RGB") + (" with alpha" if info.has_alpha else "")
    print(f"{arguments.input}: {info.width} x {info.height}, {channels}")
    print(f"  format version  {info.version}")
    print(f"  model           {info.model_id} (hash {info.model_hash})")
    print(f"  bytes           {info.n_bytes} ({info.bits_per_pixel:.4f} bits per pixel)")
    for kind, n_bytes in info.chunks.items():
        print(f"    {kind}          {n_bytes}")
    print(f"    header etc.   {info.n_bytes - sum(info.chunks.values())}")


def _map(arguments: argparse.Namespace) -> None:
    from cwic import mapview

    output = _output(arguments, ".png")
    data = _read(arguments.input)
    picture, _ = alpha.split(codec.decode(data, models_dir=arguments.models))
    bits = codec.bits_per_block(data, models_dir=arguments.models)
    model = codec.inspect(data).model_id
    stride = bundle.load(model, arguments.models).stride
    drawn = mapview.draw(picture, bits, stride, title=f"{model}: bits per pixel")
    written, _ = imagefile.to_bytes(drawn, ".png" if output == STREAM else output.suffix, Metadata())
    _write(output, written, arguments.force)


def _models(arguments: argparse.Namespace) -> None:
    for found in bundle.available(arguments.models):
        n_bytes = sum(file.stat().st_size for file in found.path.iterdir())
        default = "  (default)" if found.id == bundle.DEFAULT_MODEL else ""
        code = f"n = {found.channels}" + (f", L = {found.levels}" if found.levels else "")
        rate = f"about {found.target_bpp:.2f} bpp" if found.target_bpp else "any rate"
        cost = found.training.get("kmac_per_pixel", {}).get("decode")
        decode = f"decode {cost:5.1f} kMAC/px" if cost else ""
        print(
            f"{found.id:24} {found.kind:12} {code:16} {rate:14} {decode:20}"
            f"  {n_bytes / 1e6:5.1f} MB  {found.hash.hex()[:16]}{default}"
        )


def _demo(arguments: argparse.Namespace) -> None:
    from cwic import demo

    demo.run(arguments.input, Path())


def _lab(module: str) -> Any:
    """A laboratory module. Raises UsageError with what to install if its needs are not."""
    try:
        return importlib.import_module(f"cwic_lab.{module}")
    except ModuleNotFoundError as error:
        raise UsageError(f"{LAB_NEEDED} (missing: {error.name})") from error


def _evaluate(arguments: argparse.Namespace) -> None:
    codecs = arguments.codec or ["cwic-*", "autoencoder*", "li2018-*", "jpeg", "jpeg2000"]
    summary = _lab("evaluate.rd").evaluate(
        arguments.input, codecs, arguments.output,
        models_dir=arguments.models, crop=arguments.crop, pictures=arguments.pictures,
        anchors=arguments.anchors, curves=arguments.curve, against=arguments.against,
    )  # fmt: skip
    print(summary)
    print(f"{arguments.output / 'index.html'}")


def _train(arguments: argparse.Namespace) -> None:
    for checkpoint in _lab("train").train_in_turn(
        arguments.recipes, resume=not arguments.no_resume, runs=arguments.runs
    ):
        print(checkpoint)


def _export(arguments: argparse.Namespace) -> None:
    print(_lab("export").export(arguments.input, arguments.output, data=arguments.data))


def _download(arguments: argparse.Namespace) -> None:
    _lab("download").download_div2k(arguments.input)
    print(arguments.input)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "encode": _encode, "decode": _decode, "info": _info, "map": _map, "models": _models, "demo": _demo,
    "evaluate": _evaluate, "train": _train, "export": _export, "download": _download,
}  # fmt: skip
