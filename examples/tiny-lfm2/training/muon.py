"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for square-ish blocks.

It reaches a loss with fewer tokens than AdamW, which is what counts here. Equal shapes are
orthogonalised in one batch, and stacked projections (the convolution's ``in_proj`` holds three)
block by block.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor


def orthogonalise(x: Tensor) -> Tensor:
    """Newton-Schulz, five steps, towards the nearest semi-orthogonal matrices; ``(n, r, c)``."""
    y = x.bfloat16()
    y = y / (y.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = y @ y.mT
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
    return y.float()


class Muon(torch.optim.Optimizer):
    """Momentum, Nesterov, orthogonalised update, decoupled weight decay."""

    def __init__(self, matrices: list[Tensor], lr: float, momentum: float, weight_decay: float):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(momentum, group["momentum"])
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                rows = matrix.shape[1]
                for pair in zip(matrix.split(rows), update.split(rows), strict=True):
                    by_shape[pair[0].shape].append(pair)
            for pairs in by_shape.values():
                updates = orthogonalise(torch.stack([update for _, update in pairs]))
                for (block, _), update in zip(pairs, updates, strict=True):
                    block.sub_(update, alpha=group["lr"])
