"""The torch networks, one file per kind of bundle; `build` makes one from a recipe's `[network]` table."""

from __future__ import annotations

from torch import nn

from cwic_lab.networks.autoencoder import Autoencoder
from cwic_lab.networks.flagship import Flagship
from cwic_lab.networks.li2018 import Li2018

KINDS = {"autoencoder": Autoencoder, "li2018": Li2018, "cwic": Flagship}


def build(kind: str, **options: float) -> nn.Module:
    """A freshly initialised network of this kind. Raises ValueError for an unknown kind or option."""
    if kind not in KINDS:
        raise ValueError(f"network kind {kind!r}; allowed: {', '.join(KINDS)}")
    try:
        return KINDS[kind](**options)
    except TypeError as error:
        raise ValueError(f"network {kind!r}: {error}") from error
