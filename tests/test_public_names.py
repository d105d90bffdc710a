"""What `import cwic` gives, and what it must not load."""

from __future__ import annotations

import inspect
import subprocess
import sys

import cwic
from cwic import errors


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_public_names_are_these() -> None:
    assert sorted(cwic.__all__) == ["__version__", "decode", "encode", "errors", "inspect"]
    assert dir(cwic) == sorted(cwic.__all__)
    for name in cwic.__all__:
        assert getattr(cwic, name) is not None
    assert not hasattr(cwic, "something_else")


def test_the_public_functions_take_these_arguments() -> None:
    assert list(inspect.signature(cwic.encode).parameters) == [
        "image", "model", "quality", "bpp", "size", "psnr", "ms_ssim", "importance", "effort", "metadata",
        "models_dir", "max_pixels", "progress",
    ]  # fmt: skip
    assert list(inspect.signature(cwic.decode).parameters) == [
        "data", "models_dir", "region", "max_pixels", "progress",
    ]  # fmt: skip
    assert list(inspect.signature(cwic.inspect).parameters) == ["data", "max_pixels"]


def test_all_errors_are_public_and_in_the_tree() -> None:
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert classes == set(errors.__all__)
    assert all(issubclass(getattr(errors, name), errors.CodecError) for name in classes)
    assert {name for name in classes if issubclass(getattr(errors, name), errors.FormatError)} == {
        "FormatError", "NotCwic", "UnsupportedVersion", "Truncated", "Corrupt", "LimitExceeded",
    }  # fmt: skip
    assert {name for name in classes if issubclass(getattr(errors, name), ValueError)} == {
        "FormatError", "NotCwic", "UnsupportedVersion", "Truncated", "Corrupt", "LimitExceeded",
        "TargetUnreachable", "UnsupportedImage", "RegionOutside",
    }  # fmt: skip
    assert all((getattr(errors, name).__doc__ or "").strip() for name in classes)


def test_importing_cwic_loads_nothing_heavy() -> None:
    loaded = run("import cwic, sys; print(*sys.modules)").split()
    assert "cwic.errors" in loaded
    assert not {"numpy", "onnxruntime", "PIL", "constriction", "torch", "onnx"} & set(loaded)


def test_the_codec_module_loads_no_laboratory() -> None:
    loaded = set(run("import cwic.codec, cwic.imagefile, sys; print(*sys.modules)").split())
    assert "numpy" in loaded
    assert not {"torch", "onnx", "matplotlib", "cwic_lab", "onnxruntime"} & loaded
