"""The command line: which commands there are, and what each takes."""

from __future__ import annotations

import argparse
from pathlib import Path

from cwic import __version__, bundle
from cwic.effort import EFFORT_MAX
from cwic.encoding import DEFAULT_QUALITY


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="cwic", description="Content-weighted learned image codec.")
    top.add_argument("--version", action="version", version=f"cwic {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    def add_models(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--models", type=Path, metavar="DIR", help="folder of bundles, looked into before those in CWIC_MODELS"
        )

    def add_force(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--force", action="store_true", help="overwrite the output if it exists")

    def add_max_pixels(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--max-pixels", type=int, metavar="N", help="refuse larger pictures; default: 2^28")

    sub = add("encode", "compress an image file")
    sub.add_argument("input", type=Path, metavar="INPUT", help="an image file, or - for standard input")
    sub.add_argument(
        "-o", "--output", type=Path, metavar="OUT.cwic", help="default: INPUT with the suffix .cwic; - too"
    )
    add_force(sub)
    sub.add_argument("--strict", action="store_true", help="refuse what would be converted or left out with a notice")
    sub.add_argument("--strip", action="store_true", help="leave out ICC profile, EXIF and XMP")
    sub.add_argument("--model", default=bundle.DEFAULT_MODEL, metavar="ID", help="default: %(default)s")
    models = sub.add_argument_group("models of kind cwic", "those with every rate (`cwic models`)")
    target = models.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, metavar="0..100", help=f"default: {DEFAULT_QUALITY:g}")
    target.add_argument("--bpp", type=float, metavar="X", help="bits per pixel, not exceeded")
    target.add_argument("--size", type=int, metavar="BYTES", help="of the file, not exceeded")
    target.add_argument("--psnr", type=float, metavar="DB", help="of the decoded picture, at least")
    target.add_argument("--ms-ssim", type=float, metavar="V", help="of the decoded picture, at least")
    models.add_argument(
        "--importance",
        metavar="auto|uniform|MAP.png",
        help="a grey picture of any size: white gets more bits. Then no file holds WebP instead",
    )
    models.add_argument(
        "--effort", type=int, default=0, metavar=f"0..{EFFORT_MAX}",
        help="steps of improving the code for this picture: a smaller file, for more time; default: 0",
    )  # fmt: skip
    add_max_pixels(sub)
    add_models(sub)

    sub = add("decode", "decompress a .cwic file")
    sub.add_argument("input", type=Path, metavar="FILE.cwic", help="or - for standard input")
    sub.add_argument(
        "-o", "--output", type=Path, metavar="OUT.png",
        help="or .jpg, .webp, .tif, .avif; - for a PNG on standard output; default: FILE with the suffix .png",
    )  # fmt: skip
    add_force(sub)
    part = sub.add_mutually_exclusive_group()
    part.add_argument("--region", type=_region, metavar="X,Y,W,H", help="this part alone, in pixels")
    part.add_argument("--preview", action="store_true", help="a small picture, quickly; at most 128 pixels a side")
    add_max_pixels(sub)
    add_models(sub)

    sub = add("info", "show header, model, chunk sizes and rate, without running a network")
    sub.add_argument("input", type=Path, metavar="FILE.cwic")
    sub.add_argument("--json", action="store_true", help="for machines")

    sub = add("map", "draw where the bits went, over the picture")
    sub.add_argument("input", type=Path, metavar="FILE.cwic")
    sub.add_argument("-o", "--output", type=Path, metavar="MAP.png", required=True)
    add_force(sub)
    add_models(sub)

    sub = add("models", "list the installed bundles")
    add_models(sub)

    sub = add("demo", "encode and decode a photograph and compare with JPEG at equal bytes")
    sub.add_argument("input", type=Path, nargs="?", metavar="PHOTO", help="default: the portrait in the package")

    sub = add("evaluate", "rate and quality over a folder, as tables, plots and a page [lab]")
    sub.add_argument("input", type=Path, metavar="FOLDER")
    sub.add_argument(
        "--codec",
        action="append",
        metavar="NAME",
        help="bundle id, pattern, cwic-ssim@10 (at effort 10), jpeg, jpeg2000, webp, avif, jxl, heic; repeatable",
    )
    sub.add_argument("-o", "--output", type=Path, default=Path("report"), metavar="REPORT_DIR")
    sub.add_argument("--crop", type=_size, metavar="WxH", help="centre crop, 752x496 for the paper's")
    sub.add_argument("--anchors", type=Path, metavar="DIR", help="folder or JSON file of published curves")
    sub.add_argument("--curve", action="append", default=[], metavar="NAME", help="of those to show; repeatable")
    sub.add_argument("--against", metavar="NAME", help="anchor of BD-rates; default: the first classical codec")
    sub.add_argument("--pictures", type=int, default=4, metavar="N", help="images shown on the page")
    add_models(sub)

    sub = add("train", "train recipes one after the other, or go on where that stopped [lab]")
    sub.add_argument("recipes", type=Path, nargs="+", metavar="RECIPE.toml")
    sub.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s")
    sub.add_argument("--no-resume", action="store_true", help="start anew even if there is a checkpoint")

    sub = add("export", "make a bundle of a checkpoint, and prove that it does the same [lab]")
    sub.add_argument("input", type=Path, metavar="CHECKPOINT")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE", help="its name becomes the id")
    sub.add_argument("--data", type=Path, default=Path(), metavar="DIR", help="what the recipe's paths are relative to")

    sub = add("download", "fetch the DIV2K photographs, going on where a transfer broke off [lab]")
    sub.add_argument("input", type=Path, metavar="FOLDER")
    return top


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _region(text: str) -> tuple[int, int, int, int]:
    x, y, width, height = map(int, text.split(","))
    return x, y, width, height
