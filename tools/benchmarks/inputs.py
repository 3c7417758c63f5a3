"""Inputs that several benchmarks share: surfaces, Gaussians, encoders."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def noisy_tori(clouds: int, points: int) -> Tensor:
    """Sample tori with noise, points in random order, (clouds, points, 3)."""
    g = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, clouds, points, generator=g) * 2 * torch.pi
    ring = 1 + 0.4 * v.cos()
    surface = torch.stack([ring * u.cos(), ring * u.sin(), 0.4 * v.sin()], dim=-1)
    return surface + 0.003 * torch.randn(clouds, points, 3, generator=g)


def surface_gaussians(points: int):
    """Make overlapping Gaussians on a torus, which covers 47 % of a view (distance 3.2, field of view 40 degrees)."""
    from clipgs_plugin import GaussianCloud
    g = torch.Generator().manual_seed(0)
    extent = 0.025 * (10_000 / points) ** 0.5
    return GaussianCloud(means=0.635 * noisy_tori(1, points)[0], quats=torch.randn(points, 4, generator=g),
                         log_scales=0.4 * torch.randn(points, 3, generator=g) + math.log(extent),
                         opacity_logits=torch.randn(points, generator=g) + 1,
                         sh=0.5 * torch.randn(points, 1, 3, generator=g))


def build_encoder(backbone: dict, groups: int, size: int, **tokenizer) -> nn.Module:
    """Build an encoder with random weights, tokens of the width its backbone takes, and an open refinement gate."""
    from clipgs_plugin.registry import MODELS

    torch.manual_seed(0)
    backbone = MODELS.build(dict(backbone, type=f'clipgs_plugin.{backbone["type"]}'))
    if backbone.input == 'tokens':
        tokenizer = dict(type='clipgs_plugin.GSTokenizer', num_groups=groups, group_size=size,
                         channels=backbone.in_channels, **tokenizer)
    else:
        tokenizer = None
    encoder = MODELS.build(dict(type='clipgs_plugin.GSEncoder', tokenizer=tokenizer, backbone=backbone, embed_dim=512))
    for name, weight in encoder.named_parameters():
        if name.endswith('refinement.gate.weight'):
            nn.init.normal_(weight, std=0.05)
    return encoder
