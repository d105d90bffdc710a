"""The convolutional autoencoder of Li et al. (CVPR 2018), section 3, without importance map and without binarizer.

    planes [B,3,H,W] -- Encoder --> features [B,2c,H/8,W/8] -- CodeHead --> latents [B,n,H/8,W/8] in (0,1)
                                                                                     |
    planes [B,3,H,W] <------------------------- Decoder ----------------------------'

Legend: B batch, n code channels, h = H/8, w = W/8. Planes are RGB in [-1, 1]; H and W are multiples of 8.
The layers are those of the authors' released model, not of the paper's text where the two differ
(docs/decisions/0001-paper-or-released-code.md). No normalisation layers anywhere; every convolution has a bias.

`width` scales every channel count except n and the pictures' 3; 1.0 is the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 16 (two pixel shuffles divide by 4 and by 16), at least 16."""
    return max(16, round(channels * width / 16) * 16)


def he_init(module: nn.Module) -> None:
    """Weights from He's normal distribution, biases 0 (the paper's text; the released solver says Xavier)."""
    if isinstance(module, ResidualBlock):  # its convolutions have been visited before it
        module.start_near_identity()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class ResidualBlock(nn.Module):
    """RB(C): 3x3 C -> mid, ReLU, 3x3 mid -> C, ReLU, add the input, ReLU. [B,C,h,w] -> [B,C,h,w], both >= 0."""

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, mid, 3, padding=1)
        self.expand = nn.Conv2d(mid, channels, 3, padding=1)

    def start_near_identity(self) -> None:
        """Shrink the branch: without normalisation, a stack of full-size branches grows and trains slowly."""
        with torch.no_grad():
            self.expand.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + F.relu(self.expand(F.relu(self.reduce(x)))))


class Encoder(nn.Sequential):
    """planes [B,3,H,W] in [-1,1] -> features [B,256*width,H/8,W/8] >= 0 (the F of the importance net)."""

    def __init__(self, width: float = 1.0) -> None:
        c1, c2, mid = scaled(128, width), scaled(256, width), scaled(128, width)
        super().__init__(
            nn.Conv2d(3, c1, 8, stride=4, padding=2), nn.ReLU(),
            ResidualBlock(c1, mid),
            nn.Conv2d(c1, c2, 4, stride=2, padding=1), nn.ReLU(),
            ResidualBlock(c2, mid),
            nn.Conv2d(c2, c2, 3, padding=1), nn.ReLU(),
            ResidualBlock(c2, mid),
        )  # fmt: skip
        self.apply(he_init)
        self.out_channels = c2


class CodeHead(nn.Sequential):
    """features [B,256*width,h,w] -> latents [B,n,h,w] in (0,1): 1x1 convolution and sigmoid."""

    def __init__(self, in_channels: int, n: int) -> None:
        super().__init__(nn.Conv2d(in_channels, n, 1), nn.Sigmoid())
        self.apply(he_init)


class Decoder(nn.Sequential):
    """latents [B,n,h,w] in [0,1] -> planes [B,3,8h,8w], linear (not clipped)."""

    def __init__(self, n: int, width: float = 1.0) -> None:
        c1, c2, mid = scaled(512, width), scaled(256, width), scaled(128, width)
        tail = scaled(32, width)
        super().__init__(
            nn.Conv2d(n, c1, 3, padding=1), nn.ReLU(),
            ResidualBlock(c1, mid),
            nn.Conv2d(c1, c1, 3, padding=1), nn.ReLU(),
            ResidualBlock(c1, mid),
            nn.PixelShuffle(2),  # 1/4
            nn.Conv2d(c1 // 4, c2, 3, padding=1), nn.ReLU(),
            ResidualBlock(c2, mid),
            nn.PixelShuffle(4),  # full resolution
            nn.Conv2d(c2 // 16, tail, 3, padding=1), nn.ReLU(),
            nn.Conv2d(tail, 3, 1),
        )  # fmt: skip
        self.apply(he_init)
        # Nearly grey at the start: a noisy first picture would only have to be unlearned.
        nn.init.normal_(self[-1].weight, std=0.02)


class Autoencoder(nn.Module):
    """Encoder, code head and decoder; the code stays real-valued in (0,1).

    For files the latents are quantized uniformly to 8 bits; training sees the same rounding as uniform noise of
    one step, which is what a fine uniform quantizer does to a smooth density.
    """

    kind = "autoencoder"
    levels = 0

    def __init__(self, n: int = 16, width: float = 1.0) -> None:
        super().__init__()
        self.n = n
        self.encoder = Encoder(width)
        self.code_head = CodeHead(self.encoder.out_channels, n)
        self.decoder = Decoder(n, width)

    def analysis(self, planes: Tensor) -> Tensor:
        """planes [B,3,H,W] in [-1,1] -> latents [B,n,H/8,W/8] in (0,1)."""
        return self.code_head(self.encoder(planes))

    def synthesis(self, latents: Tensor) -> Tensor:
        """latents [B,n,h,w] in [0,1] -> planes [B,3,8h,8w]."""
        return self.decoder(latents)
