"""Every error the codec raises on purpose.

CodecError
├── FormatError (also a ValueError)        something is wrong with the bytes of a file
│   ├── NotCwic                            they do not begin like a .cwic file
│   ├── UnsupportedVersion                 a version, or a kind of chunk, unknown to this decoder
│   ├── Truncated                          the file ends before what it announces
│   ├── Corrupt                            a checksum, a field or the coded data contradicts itself
│   └── LimitExceeded                      larger than this implementation accepts
├── ModelError                             something is wrong with a bundle
│   ├── ModelNotFound                      no bundle with this id is installed
│   └── ModelMismatch                      a bundle with this id, but not the one that is meant
├── RegionOutside (also a ValueError)      a region to decode that is not within the picture
├── UnsupportedImage (also a ValueError)   a picture that cannot be encoded, read or written
└── TargetUnreachable (also a ValueError)  a size or quality that this picture cannot be given

    try:
        image = cwic.decode(data)
    except cwic.errors.CodecError as error:
        print(error)
"""

__all__ = [
    "CodecError",
    "Corrupt",
    "FormatError",
    "LimitExceeded",
    "ModelError",
    "ModelMismatch",
    "ModelNotFound",
    "NotCwic",
    "RegionOutside",
    "TargetUnreachable",
    "Truncated",
    "UnsupportedImage",
    "UnsupportedVersion",
]


class CodecError(Exception):
    """Base of all errors of this package; the message says what was found and what is allowed."""


class FormatError(CodecError, ValueError):
    """The bytes are not a .cwic file that this decoder can read."""


class NotCwic(FormatError):
    """The file does not begin with the magic number."""


class UnsupportedVersion(FormatError):
    """The file needs a newer decoder: its version, or a chunk that must be understood, is unknown."""


class Truncated(FormatError):
    """The file ends before the last byte that it announces."""


class Corrupt(FormatError):
    """A checksum differs, a field has an illegal value, or no encoder can have written the coded data."""


class LimitExceeded(FormatError):
    """The file's picture is larger than this implementation accepts (docs/format.md, section 10)."""


class ModelError(CodecError):
    """A bundle is damaged, incomplete, or its network fails."""


class ModelNotFound(ModelError):
    """No bundle with the id asked for is installed."""


class ModelMismatch(ModelError):
    """A bundle has the right id but other content: not the one that wrote the file, or altered later."""


class RegionOutside(CodecError, ValueError):
    """The region asked for is empty, or not within the picture."""


class UnsupportedImage(CodecError, ValueError):
    """A picture of a type, shape, size or mode that is not supported; the message says which are."""


class TargetUnreachable(CodecError, ValueError):
    """No quality gives the size, rate or similarity that was asked for; the message names the range that can be had."""
