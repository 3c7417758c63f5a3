"""Encoders of every backbone: time and memory of embedding and training."""
from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch
from torch import Tensor, nn

from clipgs_plugin.tools._program import progress_bar
from clipgs_plugin.tools.benchmarks import timing
from clipgs_plugin.tools.benchmarks.inputs import build_encoder, surface_gaussians
from clipgs_plugin.tools.benchmarks.memory import memory_since, reset_memory, synchronised
from clipgs_plugin.tools.benchmarks.timing import Case, beside_first
from clipgs_plugin.tools.benchmarks.views import time_views

BACKBONES = {
    'PointBERT': dict(type='PointBERT'),
    'ULIP-2': dict(type='ULIP', depth=18),
    'PointMAE': dict(type='PointMAE'),
    'ReCon': dict(type='ReCon'),
    'ReCon++ s': dict(type='ReConPlusPlus', size='s'),
    'GaussianMAE': dict(type='GaussianMAE'),
    'OpenShape 4': dict(type='OpenShapePPAT', scaling=4),
    'Uni3D ti': dict(type='Uni3D', size='ti'),
    'Uni3D s': dict(type='Uni3D', size='s'),
    'Uni3D b': dict(type='Uni3D', size='b'),
    'timm ViT-S': dict(type='TimmTransformer', name='vit_small_patch16_224'),
    'PointNet2': dict(type='PointNet2'),
    'DGCNN': dict(type='DGCNN'),
    'Serialized': dict(type='SerializedTransformer'),
}
# Options of the tokenizers that these backbones need.
TOKENIZERS = {
    'OpenShapePPAT': dict(radius=0.2, point_attributes=('xyz', 'position', 'rgb'),
                          patch_encoder=dict(type='SetAbstraction')),
    'GaussianMAE': dict(point_attributes=('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc'),
                        patch_encoder=dict(type='SoftPatchEncoder')),
}
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
TRAINING = ('training fp32', 'training bf16')
VIEWS, NUM_VIEWS = 'views:ViT-B-32', 12  # the rival without 3D weights, as its configs render


def backbones(only: str = '', points: int = 10_000, groups: int = 512, size: int = 32, batch: int = 1,
              device: str = 'auto', threads: int = 2, seconds: float = 0.5) -> list[Case]:
    """Time encoders of every backbone at a published size, refinement included: embedding, its two halves, and a
    training step. ``only`` is a part of a name, or several with commas between. The last row is the rival without 3D
    weights: 12 rendered views, one object at a time, random weights. Embedding in bf16 uses weights of that type,
    training uses autocast. MB is the peak of the tensors on a GPU; on a CPU, the growth of the process beyond a tiny
    encoder (Linux and macOS). Both count weights."""
    words = only.lower().split(',')
    titles = {**{name: f'{name} {cfg["type"]}' for name, cfg in BACKBONES.items()}, VIEWS: VIEWS}
    chosen = [name for name, title in titles.items() if any(word in title.lower() for word in words)]
    if not chosen:
        raise ValueError(f'--only {only}: no such backbone; there are {", ".join([*BACKBONES, VIEWS])}')
    found = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device not in ('auto', 'cpu', found):
        raise ValueError(f'--device {device}: expected auto or cpu, or cuda where there is a GPU')
    device = found if device == 'auto' else device
    setting = dict(points=points, groups=groups, size=size, batch=batch, device=device, threads=threads,
                   seconds=seconds)
    # Memory is measured in a process of its own, forked from one that only has the imports.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('forkserver' if 'forkserver' in methods else 'spawn')
    if 'forkserver' in methods:
        context.set_forkserver_preload([__name__, 'clipgs_plugin.models', 'timm.models'])
    cases = []
    with progress_bar() as progress:
        for name in progress.track(chosen, description='backbones'):
            by_part: dict[str, list[Case]] = {}
            for way in DTYPES if name == VIEWS else (*DTYPES, *TRAINING):
                call = partial(time_encoder, BACKBONES.get(name), way, **setting)
                if name == VIEWS:
                    call = partial(time_views, name.partition(':')[2], NUM_VIEWS, points, device, threads, seconds, way)
                with ProcessPoolExecutor(1, mp_context=context) as process:
                    measured = process.submit(call).result()
                objects = 1 if name == VIEWS else batch
                for part, (ms, cpu_ms, memory_mb) in measured.items():
                    by_part.setdefault(part, []).append(
                        Case(f'{name}: {part}', way.split()[-1], threads, ms / objects, cpu_ms / objects, 'object',
                             memory_mb=memory_mb))
            cases += [case for ways in by_part.values() for case in beside_first(ways)]
    return cases


def time_encoder(backbone: dict, way: str, points: int, groups: int, size: int, batch: int, device: str, threads: int,
                 seconds: float) -> dict[str, tuple[float, float, float | None]]:
    """Return wall and CPU milliseconds of a batch and peak megabytes, for each part of an encoder."""
    from clipgs_plugin import GaussianBatch

    torch.set_num_threads(threads)
    objects = GaussianBatch.from_clouds([surface_gaussians(points)] * batch).to(device)
    few = GaussianBatch.from_clouds([surface_gaussians(16)]).to(device)
    dtype = DTYPES.get(way, torch.float32)
    parts_of = partial(training_parts, autocast=way.endswith('bf16')) if way in TRAINING else embedding_parts
    # Libraries are loaded before memory is measured.
    with torch.device('meta'):
        build_encoder(backbone, groups, size)
    tiny = build_encoder(dict(type='PointBERT', embed_dims=12, depth=1, num_heads=2), 8, 4).to(device, dtype)
    for function in parts_of(tiny, few).values():
        function()
    del tiny
    before = reset_memory(device)

    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # rather than a cast, which would take the memory of both
    try:
        encoder = build_encoder(backbone, groups, size, **TOKENIZERS.get(backbone['type'], {})).to(device)
    finally:
        torch.set_default_dtype(default)
    measured = {}
    for part, function in parts_of(encoder, objects).items():
        ms, cpu_ms = timing.measure([synchronised(function, device)], seconds)[0]
        # Later parts reuse memory that this process already holds.
        measured[part] = ms, cpu_ms, None if measured else memory_since(before, device)
    return measured


def embedding_parts(encoder: nn.Module, objects) -> dict[str, Callable[[], Tensor]]:
    """Return functions that embed a batch and, for encoders with a tokenizer, its two halves."""
    encoder = encoder.eval()
    run = torch.no_grad()
    parts = {'embedding': run(lambda: encoder(objects))}
    if encoder.tokenizer is not None:
        tokens = run(encoder.tokenizer)(objects)
        parts['tokenizer'] = run(lambda: encoder.tokenizer(objects))
        parts['transformer'] = run(lambda: encoder.backbone(tokens))
    return parts


def training_parts(encoder: nn.Module, objects, autocast: bool) -> dict[str, Callable[[], None]]:
    """Return a function that makes an AdamW step towards random embeddings, in bfloat16 with ``autocast``."""
    encoder = encoder.train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4)
    target = torch.randn(len(objects), encoder.embed_dim, device=objects.device)

    def step() -> None:
        with torch.autocast(objects.device.type, torch.bfloat16, enabled=autocast):
            loss = (encoder(objects).float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {'training step': step}
