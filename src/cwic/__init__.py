"""cwic: a content-weighted learned image codec (Li et al., CVPR 2018).

    data = cwic.encode(image)       # uint8 [H,W,3] or [H,W] -> bytes, the content of a .cwic file
    image = cwic.decode(data)       # and back
    cwic.inspect(data)              # header, model, chunk sizes, bits per pixel; runs no network

Everything raised on purpose is a cwic.errors.CodecError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cwic import errors

if TYPE_CHECKING:
    from cwic.codec import decode, encode, inspect

__version__ = "0.1.0.dev0"

__all__ = ["__version__", "decode", "encode", "errors", "inspect"]


def __getattr__(name: str) -> Any:
    # The codec comes with its first use: NumPy alone takes longer to import than `import cwic` may.
    if name in ("decode", "encode", "inspect"):
        from cwic import codec

        return getattr(codec, name)
    raise AttributeError(f"module 'cwic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
