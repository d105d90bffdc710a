"""The content-weighted codec of Li et al. (CVPR 2018): binarizer, importance map, mask, and the whole network.

    planes x --Encoder--> features F --CodeHead--> latents e --Binarizer--> bits b --((2b-1) m)--> Decoder --> planes
                              |                                                            ^
                              '--ImportanceNet--> importance p --ImportanceMask-----' m (0 or 1, a prefix of channels)

Legend: B batch, n code channels, L importance levels, h = H/8, w = W/8, k = 1..n channel, (i, j) position.
Equation numbers are not given: the facts are those of the paper's section 3 and of the authors' released layers;
where they differ see docs/decisions/0001-paper-or-released-code.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from cwic_lab.networks.autoencoder import CodeHead, Decoder, Encoder, he_init


class Binarizer(torch.autograd.Function):
    """B(e) = 1 where e > 0.5, else 0; backward through the proxy clip(e, 0, 1) (section 3.1).

    latents e [any shape] -> bits, same shape and dtype. The proxy's derivative is 1 on 0 <= e <= 1 and 0 outside.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, latents: Tensor) -> Tensor:
        ctx.save_for_backward(latents)
        return (latents > 0.5).to(latents.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        (latents,) = ctx.saved_tensors
        return grad * ((latents >= 0) & (latents <= 1)).to(grad.dtype)


class ImportanceMask(torch.autograd.Function):
    """m_kij = 1 where k <= (n/L) Q(p_ij), Q(p) = min(floor(L p), L-1), k = 1..n; else 0 (section 3.2).

    importance p [B,1,h,w] in [0,1] -> mask [B,n,h,w] in {0,1}. Backward, per position, the paper's window:
    dm_kij/dp_ij = L where L p - 1 <= ceil(k L / n) < L p + 2, else 0; summed over k with the incoming gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, importance: Tensor, n: int, levels: int) -> Tensor:
        group = channel_groups(n, levels, importance)  # [1,n,1,1]: ceil(k L / n) = 1..L
        quantized = torch.floor(importance * levels).clamp(max=levels - 1)
        ctx.save_for_backward(importance, group)
        ctx.levels = levels
        return (group <= quantized).to(importance.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        importance, group = ctx.saved_tensors
        scaled = importance * ctx.levels
        window = (group >= scaled - 1) & (group < scaled + 2)
        return (grad * window * ctx.levels).sum(dim=1, keepdim=True), None, None


def channel_groups(n: int, levels: int, like: Tensor) -> Tensor:
    """The level at which each channel switches on: ceil(k L / n) for k = 1..n, as [1,n,1,1] with `like`'s dtype."""
    k = torch.arange(1, n + 1, device=like.device)
    return ((k * levels + n - 1) // n).to(like.dtype).view(1, n, 1, 1)


class ImportanceNet(nn.Sequential):
    """features [B,256*width,h,w] -> importance p [B,1,h,w] in (0,1): 3x3 to 128*width, ReLU, 1x1 to 1, sigmoid."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels // 2, 3, padding=1), nn.ReLU(),
            nn.Conv2d(in_channels // 2, 1, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.apply(he_init)
        # A flat map at the start of joint training; what should differ between places is learned.
        nn.init.zeros_(self[2].weight)

    def start_at(self, importance: float) -> None:
        """Set the output bias so that the untrained map is `importance` (in (0,1)) everywhere."""
        nn.init.constant_(self[2].bias, torch.logit(torch.tensor(importance)).item())


class Li2018(nn.Module):
    """The paper's codec. (n, L) is (64, 16), or (128, 32) for rates above 0.5 bpp (section 4.1)."""

    kind = "li2018"

    def __init__(self, n: int = 64, levels: int = 16, width: float = 1.0) -> None:
        super().__init__()
        if n % levels:
            raise ValueError(f"n = {n} code channels do not divide into L = {levels} importance levels")
        self.n, self.levels = n, levels
        self.encoder = Encoder(width)
        self.code_head = CodeHead(self.encoder.out_channels, n)
        self.importance_net = ImportanceNet(self.encoder.out_channels)
        self.decoder = Decoder(n, width)

    def analysis(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """planes [B,3,H,W] in [-1,1] -> latents e [B,n,H/8,W/8] and importance p [B,1,H/8,W/8], both in (0,1)."""
        features = self.encoder(planes)
        return self.code_head(features), self.importance_net(features)

    def synthesis(self, code: Tensor) -> Tensor:
        """Code c = (2 b - 1) m [B,n,h,w] in {-1,0,1} -> planes [B,3,8h,8w].

        The paper feeds b m, where a masked bit looks like a 0; with signs the decoder can tell them apart, and its
        first layer sees values of mean 0 (docs/decisions/0001-paper-or-released-code.md).
        """
        return self.decoder(code)

    def forward(self, planes: Tensor, prefix: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction [B,3,H,W], mask [B,n,h,w] and importance [B,1,h,w].

        prefix: int [B], for training without the map (stage 1): keep that many leading channels everywhere.
        """
        latents, importance = self.analysis(planes)
        bits = Binarizer.apply(latents)
        if prefix is None:
            mask = ImportanceMask.apply(importance, self.n, self.levels)
        else:
            channel = torch.arange(self.n, device=planes.device).view(1, -1, 1, 1)
            mask = (channel < prefix.view(-1, 1, 1, 1)).to(bits.dtype).expand_as(bits)
        return self.synthesis((2 * bits - 1) * mask), mask, importance
