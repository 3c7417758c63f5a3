"""Embedding of one object."""
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clipgs_plugin.tools.benchmarks.inputs import build_encoder, surface_gaussians
from clipgs_plugin.tools.benchmarks.timing import Case, compare, on_threads


def as_published(encoder: nn.Module) -> nn.Module:
    """Copy an encoder; the patch encoder of the copy computes as published."""
    encoder = copy.deepcopy(encoder)
    encoder.tokenizer.patch_encoder.forward = encoder.tokenizer.patch_encoder.reference
    return encoder


def cosine(a: Tensor, b: Tensor) -> str:
    """Return the least cosine between rows as text."""
    return f'cosine {torch.cosine_similarity(a.float(), b.float(), dim=-1).min():.5f}'


@torch.no_grad()
def embed(points: int = 10_000, groups: int = 512, size: int = 64, clouds: int = 8, threads: str = '2') -> list[Case]:
    """Time the embedding of one object by transformers of ViT-S width on the CPU, with and without the refinement
    branch, and the patch encoder alone on several objects; baseline: the patch encoder as published, in float32."""
    from clipgs_plugin import GaussianBatch
    from clipgs_plugin.models import PatchEncoder

    object_ = GaussianBatch.from_clouds([surface_gaussians(points)])
    encoders = {'PointBERT': build_encoder(dict(type='PointBERT', in_channels=512), groups, size).eval(),
                'Uni3D s': build_encoder(dict(type='Uni3D', size='s'), groups, size).eval()}
    patch_encoder = PatchEncoder(6, 512).eval()
    half_patch_encoder = copy.deepcopy(patch_encoder).bfloat16()
    patches = torch.randn(clouds * groups, size, 6)
    half_patches = patches.bfloat16()
    standard = (points, groups, size) == (10_000, 512, 64)

    def budgeted(fp32: float, bf16: float) -> dict[str, float]:
        return {'fp32': fp32, 'bf16': bf16} if standard and torch.get_num_threads() == 2 else {}

    def embedding(name: str) -> list[Case]:
        refined = encoders[name]
        plain = copy.deepcopy(refined)
        plain.tokenizer.refinement = None
        modules = {'fp32, as published': as_published(plain), 'fp32': plain, 'fp32, refined': refined,
                   'bf16': copy.deepcopy(plain).bfloat16(), 'bf16, refined': copy.deepcopy(refined).bfloat16()}
        found = {way: module(object_) for way, module in modules.items()}
        notes = {'fp32': f'differs by {(found["fp32"] - found["fp32, as published"]).abs().max():.0e}',
                 'bf16': f'{cosine(found["bf16"], found["fp32"])} with fp32',
                 'bf16, refined': f'{cosine(found["bf16, refined"], found["fp32, refined"])} with fp32'}
        budgets = budgeted(390, 190)
        cases = compare(name, {way: lambda module=module: module(object_) for way, module in modules.items()}, 1,
                        'object', budgets, notes, in_turn=True)
        by_way = {case.way: case for case in cases}
        for way in ('fp32', 'bf16'):
            without, case = by_way[way], by_way[f'{way}, refined']
            extra = f'{case.ms / without.ms - 1:+.0%}, by CPU {case.cpu_ms / without.cpu_ms - 1:+.0%}'
            case.note = ', '.join(filter(None, [extra, case.note]))
            case.budget_ms = round(1.4 * without.ms, 1) if budgets else None
        return cases

    def cases() -> list[Case]:
        found = patch_encoder(patches)
        notes = {'fp32': f'differs by {(found - patch_encoder.reference(patches)).abs().max():.0e}',
                 'bf16': f'{cosine(half_patch_encoder(half_patches), found)} with fp32'}
        return [*[case for name in encoders for case in embedding(name)],
                *compare('patch encoder', {
                    'fp32, as published': lambda: patch_encoder.reference(patches),
                    'fp32': lambda: patch_encoder(patches),
                    'bf16': lambda: half_patch_encoder(half_patches),
                }, clouds, 'object', budgeted(205, 75), notes, in_turn=True)]
    return on_threads(threads, cases)
