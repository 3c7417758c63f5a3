"""Time parts of the library beside plain baselines, in one run on one machine.

Each benchmark is a function in the table ``BENCHMARKS``: its keyword arguments become options, its docstring its help,
and the cases it returns the rows of a table.
"""
from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from clipgs_plugin.tools._program import parser, progress_bar, run

BENCHMARKS: dict[str, Callable[..., list[Case]]] = {}


@dataclasses.dataclass
class Case:
    """One row: the best of the repeats of one thing done one way."""

    what: str
    way: str
    threads: int
    ms: float                      # per `unit`, on the clock
    cpu_ms: float                  # per `unit`, of all threads together
    unit: str
    times: float | None = None     # as fast as the baseline, on the clock
    cpu_times: float | None = None  # the same, of the processor
    budget_ms: float | None = None
    memory_mb: float | None = None  # most that was taken at a time; what counts, the benchmark says
    note: str = ''


def benchmark(function: Callable[..., list[Case]]) -> Callable[..., list[Case]]:
    """Make a function a subcommand."""
    BENCHMARKS[function.__name__] = function
    return function


def measure(functions: Sequence[Callable[[], object]], seconds: float = 1.0,
            repeats: int = 3) -> list[tuple[float, float]]:
    """Milliseconds of one call, on the clock and of the processor, each the least of the repeats after a warm-up.

    Args:
        functions: What to time, taken in turn, so that what disturbs one disturbs all.
        seconds: Repeats go on for that long, for each function.
        repeats: At least so many, unless they take ten times as long.
    """
    for function in functions:
        function()
    limit, rounds = seconds * len(functions), 0
    wall, cpu = [math.inf] * len(functions), [math.inf] * len(functions)
    start = time.perf_counter()
    while not rounds or (spent := time.perf_counter() - start) < limit or (rounds < repeats and spent < 10 * limit):
        rounds += 1
        for i, function in enumerate(functions):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            function()
            wall[i] = min(wall[i], time.perf_counter() - wall_start)
            cpu[i] = min(cpu[i], time.process_time() - cpu_start)
    return [(1e3 * a, 1e3 * b) for a, b in zip(wall, cpu)]


def compare(
    what: str,
    ways: dict[str, Callable[[], object]],  # the first is the baseline
    count: int,                             # units in one call
    unit: str,
    budgets_ms: dict[str, float] | None = None,
    notes: dict[str, str] | None = None,
    in_turn: bool = False,                  # ways of which the ratio is wanted, rather than each undisturbed
) -> list[Case]:
    """A case for each way of doing one thing, on the threads torch may use now."""
    functions = list(ways.values())
    times = measure(functions) if in_turn else [measure([function])[0] for function in functions]
    return beside_first([Case(what, way, torch.get_num_threads(), ms / count, cpu_ms / count, unit,
                              budget_ms=(budgets_ms or {}).get(way), note=(notes or {}).get(way, ''))
                         for way, (ms, cpu_ms) in zip(ways, times)])


def beside_first(cases: list[Case]) -> list[Case]:
    """The cases, each but the first with how many times as fast as that it is."""
    for case in cases[1:]:
        case.times, case.cpu_times = cases[0].ms / case.ms, cases[0].cpu_ms / case.cpu_ms
    return cases


def on_threads(counts: str, run: Callable[[], list[Case]]) -> list[Case]:
    """The cases of ``run`` under each number of threads, given as in ``'1,2'``."""
    before, cases = torch.get_num_threads(), []
    try:
        for count in counts.split(','):
            torch.set_num_threads(int(count))
            cases += run()
    finally:
        torch.set_num_threads(before)
    return cases


# ops


def noisy_tori(clouds: int, points: int) -> Tensor:
    """Object surfaces with noise, shuffled, (clouds, points, 3)."""
    g = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, clouds, points, generator=g) * 2 * torch.pi
    ring = 1 + 0.4 * v.cos()
    surface = torch.stack([ring * u.cos(), ring * u.sin(), 0.4 * v.sin()], dim=-1)
    return surface + 0.003 * torch.randn(clouds, points, 3, generator=g)


def plain_fps(points: Tensor, num_samples: int) -> Tensor:
    """The loop found in most point cloud code."""
    b, n, _ = points.shape
    picks = torch.zeros(b, num_samples, dtype=torch.int64)
    distance = torch.full((b, n), 1e10)
    farthest = torch.zeros(b, dtype=torch.int64)
    batch = torch.arange(b)
    for i in range(num_samples):
        picks[:, i] = farthest
        center = points[batch, farthest].view(b, 1, 3)
        squared = ((points - center) ** 2).sum(-1)
        closer = squared < distance
        distance[closer] = squared[closer]
        farthest = distance.max(-1)[1]
    return picks


def plain_knn(points: Tensor, queries: Tensor, k: int) -> Tensor:
    """All distances from the expanded square, then the smallest."""
    squared = (queries ** 2).sum(-1)[:, :, None] - 2 * queries @ points.mT + (points ** 2).sum(-1)[:, None]
    return squared.topk(k, dim=-1, largest=False, sorted=False)[1]


@benchmark
def ops(points: int = 10_000, clouds: int = 8, groups: int = 512, size: int = 32, threads: str = '1,2') -> list[Case]:
    """Farthest point sampling, neighbours and orders on the CPU; baseline: the naive loops in torch."""
    from clipgs_plugin import ops
    from clipgs_plugin.ops.ordering import CURVES

    batch = noisy_tori(clouds, points)
    columns = torch.cat([batch, torch.rand(clouds, points, 11)], dim=-1)
    naive_centers = plain_fps(batch, groups)
    centers, neighbors = ops.group(batch, groups, size)
    queries = batch.gather(1, centers[..., None].expand(-1, -1, 3))
    patches = batch.gather(1, neighbors.flatten(1)[..., None].expand(-1, -1, 3)).view(clouds, groups, size, 3)
    same = (naive_centers == centers).float().mean()
    same_sets = (plain_knn(batch, queries, size).sort().values == neighbors.sort().values).float().mean()
    standard = (points, clouds, groups, size) == (10_000, 8, 512, 32)

    def naive_group():
        plain_knn(batch, batch.gather(1, plain_fps(batch, groups)[..., None].expand(-1, -1, 3)), size)

    def cases() -> list[Case]:
        return [
            *compare('FPS and kNN', {
                'naive loop': naive_group,
                'reference': lambda: ops.group(batch, groups, size, backend='reference'),
                'cpu': lambda: ops.group(batch, groups, size, backend='cpu'),
            }, clouds, 'cloud', {'cpu': 2.5} if standard and torch.get_num_threads() == 2 else None),
            *compare('FPS', {
                'naive loop': lambda: plain_fps(batch, groups),
                'reference': lambda: ops.farthest_point_sample(batch, groups, backend='reference'),
                'cpu': lambda: ops.farthest_point_sample(batch, groups, backend='cpu'),
            }, clouds, 'cloud', notes={'cpu': f'{same:.2%} of the indices of the naive loop'}),
            *compare('kNN', {
                'naive': lambda: plain_knn(batch, queries, size),
                'reference': lambda: ops.knn(batch, queries, size, backend='reference'),
                'cpu': lambda: ops.knn(batch, queries, size, backend='cpu'),
            }, clouds, 'cloud', notes={'cpu': f'{same_sets:.2%} of the indices of the naive way'}),
            *[case for curve in CURVES for case in compare(
                f'{curve} order in patches', {'torch': lambda curve=curve: ops.curve_order(patches, curve)}, clouds,
                'cloud')],
            *compare('order by content', {
                'lexsort': lambda: [np.lexsort(rows.T[::-1]) for rows in columns.numpy()],
                'torch': lambda: ops.canonical_order(columns),
            }, clouds, 'cloud', {'torch': 2.0}),
        ]
    return on_threads(threads, cases)


# render


def surface_gaussians(points: int):
    """Overlapping Gaussians on a torus that covers 47 % of a picture taken at distance 3.2 under 40 degrees."""
    from clipgs_plugin import GaussianCloud
    g = torch.Generator().manual_seed(0)
    extent = 0.025 * (10_000 / points) ** 0.5
    return GaussianCloud(means=0.635 * noisy_tori(1, points)[0], quats=torch.randn(points, 4, generator=g),
                         log_scales=0.4 * torch.randn(points, 3, generator=g) + math.log(extent),
                         opacity_logits=torch.randn(points, generator=g) + 1,
                         sh=0.5 * torch.randn(points, 1, 3, generator=g))


@benchmark
def render(points: int = 10_000, size: int = 128, threads: str = '1,2') -> list[Case]:
    """Drawing one view on the CPU, without and with the way back; baseline: the plain reference in torch."""
    from clipgs_plugin import ops

    cloud = surface_gaussians(points)
    viewmat = ops.sphere_cameras(1, 3.2, elevation=40.0)
    camera = ops.intrinsics(40, size, size)[None]
    fitted = cloud.apply(lambda x: x.clone().requires_grad_())
    picture, alpha = ops.render(cloud, viewmat, camera, size, size)
    target = picture.flip(1)
    standard = (points, size) == (10_000, 128)

    def step(backend: str) -> None:
        image, _ = ops.render(fitted, viewmat, camera, size, size, backend=backend)
        torch.autograd.grad((image - target).abs().mean(), [value for _, value in fitted.fields()])

    def cases() -> list[Case]:
        budgeted = standard and torch.get_num_threads() == 2
        backends = ('reference', 'cpu')
        return [
            *compare('forward', {b: lambda b=b: ops.render(cloud, viewmat, camera, size, size, backend=b)
                                 for b in backends}, 1, 'view', {'cpu': 5} if budgeted else None,
                     {'cpu': f'covers {(alpha > 0.5).float().mean():.0%}'}),
            *compare('forward, L1 and backward', {b: lambda b=b: step(b) for b in backends}, 1, 'view',
                     {'cpu': 12} if budgeted else None),
        ]
    return on_threads(threads, cases)


# kernels

FIRST_USES = {
    'point kernels': 'ops.group(torch.rand(1, 500, 3), 32, 8)',
    'rasteriser': ('c = clipgs_plugin.GaussianCloud(*(torch.randn(s, requires_grad=True) for s in '
                   '((9, 3), (9, 4), (9, 3), (9,), (9, 1, 3))))\n'
                   'ops.render(c, ops.look_at((0., 0., 9.))[None], ops.intrinsics(40, 32, 32)[None], 32, 32)[0]'
                   '.sum().backward()'),
}


@benchmark
def kernels() -> list[Case]:
    """First use of the compiled kernels in a new process, with nothing on disk and with their machine code there."""
    cases = []
    for what, call in FIRST_USES.items():
        code = ('import time, torch, clipgs_plugin\nfrom clipgs_plugin import ops\n'
                'wall, cpu = time.perf_counter(), time.process_time()\n'
                f'{call}\nprint(time.perf_counter() - wall, time.process_time() - cpu)')
        with tempfile.TemporaryDirectory() as cache:
            for way, budget_ms in (('compiled', 20_000), ('from disk', 1_000)):
                done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'NUMBA_CACHE_DIR': cache},
                                      capture_output=True, text=True, check=True)
                ms, cpu_ms = (float(seconds) * 1e3 for seconds in done.stdout.split())
                cases.append(Case(what, way, 1, ms, cpu_ms, 'process', times=cases[-1].ms / ms if cases else None,
                                  cpu_times=cases[-1].cpu_ms / cpu_ms if cases else None,
                                  budget_ms=budget_ms, note='with the import of numba'))
    return cases


# embed


def build_encoder(backbone: dict, groups: int, size: int, **tokenizer) -> nn.Module:
    """An encoder of random weights with tokens as wide as the backbone takes them, its refinement not closed."""
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


def as_published(encoder: nn.Module) -> nn.Module:
    """A copy whose patch encoder goes through its plain form."""
    encoder = copy.deepcopy(encoder)
    encoder.tokenizer.patch_encoder.forward = encoder.tokenizer.patch_encoder.reference
    return encoder


def cosine(a: Tensor, b: Tensor) -> str:
    """The least cosine between rows, in words."""
    return f'cosine {torch.cosine_similarity(a.float(), b.float(), dim=-1).min():.5f}'


@benchmark
@torch.no_grad()
def embed(points: int = 10_000, groups: int = 512, size: int = 64, clouds: int = 8, threads: str = '2') -> list[Case]:
    """One object's embedding by transformers of ViT-S width on the CPU, without and with the refinement branch, and
    the patch encoder alone on several; baseline: the patch encoder as published, in float32."""
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


# backbones

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
}
# What tokenizers of backbones need beside the width of a token.
TOKENIZERS = {
    'OpenShapePPAT': dict(radius=0.2, point_attributes=('xyz', 'position', 'rgb'),
                          patch_encoder=dict(type='SetAbstraction')),
    'GaussianMAE': dict(point_attributes=('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc'),
                        patch_encoder=dict(type='SoftPatchEncoder')),
}
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
TRAINING = ('training fp32', 'training bf16')


@benchmark
def backbones(only: str = '', points: int = 10_000, groups: int = 512, size: int = 32, batch: int = 1,
              device: str = 'auto', threads: int = 2, seconds: float = 0.5) -> list[Case]:
    """Encoders of every backbone at a published size, refinement included: embedding, its two halves apart, and a
    step of training. Embedding in bf16 is with weights of that type, training with autocast. MB is, on a GPU, the most
    that tensors took at a time; on a CPU, by how much the process grew beyond what a tiny encoder took (Linux and
    macOS). Both count weights."""
    chosen = {name: cfg for name, cfg in BACKBONES.items() if only.lower() in f'{name} {cfg["type"]}'.lower()}
    if not chosen:
        raise ValueError(f'--only {only}: no such backbone; there are {", ".join(BACKBONES)}')
    found = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device not in ('auto', 'cpu', found):
        raise ValueError(f'--device {device}: expected auto or cpu, or cuda where there is a GPU')
    device = found if device == 'auto' else device
    setting = dict(points=points, groups=groups, size=size, batch=batch, device=device, threads=threads,
                   seconds=seconds)
    # Each way in a process of its own, for its memory; they start from one that has only imported what they use.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('forkserver' if 'forkserver' in methods else 'spawn')
    if 'forkserver' in methods:
        context.set_forkserver_preload([__name__, 'clipgs_plugin.models', 'timm.models'])
    cases = []
    with progress_bar() as progress:
        for name, cfg in progress.track(chosen.items(), description='backbones'):
            by_part: dict[str, list[Case]] = {}
            for way in (*DTYPES, *TRAINING):
                with ProcessPoolExecutor(1, mp_context=context) as process:
                    measured = process.submit(time_encoder, cfg, way, **setting).result()
                for part, (ms, cpu_ms, memory_mb) in measured.items():
                    by_part.setdefault(part, []).append(
                        Case(f'{name}: {part}', way.split()[-1], threads, ms / batch, cpu_ms / batch, 'object',
                             memory_mb=memory_mb))
            cases += [case for ways in by_part.values() for case in beside_first(ways)]
    return cases


def time_encoder(backbone: dict, way: str, points: int, groups: int, size: int, batch: int, device: str, threads: int,
                 seconds: float) -> dict[str, tuple[float, float, float | None]]:
    """Milliseconds of a batch, on the clock and of the processor, and megabytes, of each part of one way."""
    from clipgs_plugin import GaussianBatch

    torch.set_num_threads(threads)
    objects = GaussianBatch.from_clouds([surface_gaussians(points)] * batch).to(device)
    few = GaussianBatch.from_clouds([surface_gaussians(16)]).to(device)
    dtype = DTYPES.get(way, torch.float32)
    parts_of = partial(training_parts, autocast=way.endswith('bf16')) if way in TRAINING else embedding_parts
    # What of the libraries is used is in memory before it is measured.
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
        ms, cpu_ms = measure([synchronised(function, device)], seconds)[0]
        # What comes after the first part finds memory that this process has taken already.
        measured[part] = ms, cpu_ms, None if measured else memory_since(before, device)
    return measured


def embedding_parts(encoder: nn.Module, objects) -> dict[str, Callable[[], Tensor]]:
    """Embedding a batch, and where there is a tokenizer its two halves."""
    encoder = encoder.eval()
    run = torch.no_grad()
    parts = {'embedding': run(lambda: encoder(objects))}
    if encoder.tokenizer is not None:
        tokens = run(encoder.tokenizer)(objects)
        parts['tokenizer'] = run(lambda: encoder.tokenizer(objects))
        parts['transformer'] = run(lambda: encoder.backbone(tokens))
    return parts


def training_parts(encoder: nn.Module, objects, autocast: bool) -> dict[str, Callable[[], None]]:
    """A step towards random embeddings by AdamW, in bfloat16 with ``autocast``."""
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


def synchronised(function: Callable[[], object], device: str) -> Callable[[], object]:
    """The function, over only when the GPU is done."""
    if device == 'cpu':
        return function

    def call() -> None:
        function()
        torch.cuda.synchronize()
    return call


def reset_memory(device: str) -> float | None:
    """Where to measure memory from: megabytes of this process, 0 on a GPU, None on a system that does not say."""
    if device != 'cpu':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return 0.0
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20


def memory_since(before: float | None, device: str) -> float | None:
    """The most megabytes that were taken at a time."""
    if device != 'cpu':
        return torch.cuda.max_memory_allocated() / 2 ** 20
    return None if before is None else reset_memory(device) - before


# triplets


@benchmark
def triplets(meshes: str = '', up: str = 'y', count: int = 6, threads: str = '1') -> list[Case]:
    """Making a triplet of a mesh, step by step: views by each renderer, fits but the longest, storing and reading.

    It takes ``count`` meshes, evenly over the folder ``meshes``.
    """
    from clipgs_plugin.generation import ViewRule
    from clipgs_plugin.generation.rendering import choose_renderer
    from clipgs_plugin.generation.rendering.surfaces import normalised, turned
    from clipgs_plugin.generation.sources import MeshSource

    if not meshes:
        raise ValueError('name a folder of meshes: --meshes FOLDER')
    source = MeshSource(up=up)
    listed = source.list(meshes)
    objects = [normalised(turned(source.load(listed[i]), up))[0]
               for i in sorted({int(i) for i in np.linspace(0, len(listed) - 1, count)})]

    def cases() -> list[Case]:
        # OpenGL keeps the threads that torch has as it begins.
        renderers = ['raycast', *(['egl'] if choose_renderer('auto') == 'egl' else [])]
        fits, clouds, pictures = [], [], []
        for preset, size in (('draft', 64), ('default', 128)):
            rule = ViewRule(size=size)
            views = all_views(objects, rule, renderers[-1])
            case, clouds = fit_all(objects, views, rule, preset)
            fits.append(case)
            pictures = [images[:rule.num_views] for images in views]
        views = compare('views', {name: lambda name=name: all_views(objects, rule, name) for name in renderers},
                        len(objects), 'object')
        views[-1].note = agreement(*(all_views(objects, rule, name) for name in (renderers[0], renderers[-1])))
        return [*views, *fits, *store_all(clouds, pictures)]
    return on_threads(threads, cases)


def all_views(objects: list, rule, renderer: str) -> list[np.ndarray]:
    """Views to fit and held out of each mesh, on the rule's background, (V, H, W, 4) each."""
    from clipgs_plugin.generation.rendering import render_mesh
    viewmats = np.concatenate([rule.train_cameras(), rule.test_cameras()])
    return [render_mesh(mesh, viewmats, rule.intrinsics(), rule.size, rule.size, renderer=renderer) for mesh in objects]


def agreement(first: list[np.ndarray], second: list[np.ndarray]) -> str:
    """How alike two renderers' pictures are on white, by view."""
    from clipgs_plugin.generation.objects import composite
    white = 1.0, 1.0, 1.0
    errors = [np.square(composite(a, white) - composite(b, white)).mean((1, 2, 3)) for a, b in zip(first, second)]
    psnr = -10 * np.log10(np.concatenate(errors).clip(1e-10))
    return f'PSNR {np.median(psnr):.1f} dB with the first, at worst {psnr.min():.1f}'


def fit_all(objects: list, views: list[np.ndarray], rule, preset: str) -> tuple[Case, list]:
    """The case of fitting each mesh with a preset, and the clouds."""
    from clipgs_plugin.generation.fitting.optimise import PRESETS, fit
    from clipgs_plugin.generation.objects import Views
    from clipgs_plugin.generation.rendering.surfaces import sample_surface
    settings, intrinsics = PRESETS[preset], rule.intrinsics()
    cameras = rule.train_cameras(), rule.test_cameras()
    inputs = [(sample_surface(mesh, settings.num_gaussians, 0).discs(),
               *(Views(part, viewmats, np.repeat(intrinsics[None], len(part), axis=0))
                 for part, viewmats in zip(np.split(images, [rule.num_views]), cameras)))
              for mesh, images in zip(objects, views)]
    found = []

    def fit_each() -> None:
        found[:] = [fit(*given, rule.background, settings) for given in inputs]
    case, = compare('fit', {preset: fit_each}, len(objects), 'object')
    whole, foreground = (np.median([fitted.quality[name] for fitted in found]) for name in ('psnr', 'psnr_foreground'))
    case.note = f'{settings.num_gaussians:,} at {rule.size} px: PSNR {whole:.1f} dB, foreground {foreground:.1f}'
    return case, [fitted.cloud for fitted in found]


def store_all(clouds: list, pictures: list[np.ndarray]) -> list[Case]:
    """The cases of encoding objects and of reading them at random."""
    from clipgs_plugin.generation.objects import composite
    from clipgs_plugin.triplets import ShardReader, ShardWriter
    from clipgs_plugin.triplets.samples import encode_sample
    objects = [(str(i), cloud, np.rint(composite(images, (1.0, 1.0, 1.0)) * 255).astype(np.uint8))
               for i, (cloud, images) in enumerate(zip(clouds, pictures))]
    samples = [encode_sample(*given, captions=['a mesh']) for given in objects]
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(folder) as writer:
            for sample in samples:
                writer.add(sample)
        reader = ShardReader(folder)
        each = range(len(reader))
        cases = compare('storage', {
            'encode': lambda: [encode_sample(*given, captions=['a mesh']) for given in objects],
            'read Gaussians': lambda: [reader.read_gaussians(i) for i in each],
            'read views': lambda: [reader.read_views(i) for i in each]}, len(reader), 'object', {'read Gaussians': 2.0})
        reader.close()
    cases[0].note = f'{np.median([len(sample.data) for sample in samples]) / 1e3:.0f} kB'
    for case in cases:  # three things, not three ways of one
        case.times = case.cpu_times = None
    return cases


# the program


def table_of(cases: list[Case]):
    from rich.table import Table

    def number(value: float | None, form: str) -> str:
        return '' if value is None else form.format(value)

    table, rows = Table(), []
    for case in cases:
        missed = case.budget_ms is not None and case.ms > case.budget_ms
        rows.append({
            'what': case.what, 'way': case.way, 'threads': str(case.threads),
            'ms': f'[red]{case.ms:.2f}[/]' if missed else f'{case.ms:.2f}', 'CPU ms': f'{case.cpu_ms:.2f}',
            'per': case.unit, 'a second': f'{1e3 / case.ms:.4g}' if case.unit == 'object' else '',
            'faster': number(case.times, 'x{:.1f}'), 'by CPU': number(case.cpu_times, 'x{:.1f}'),
            'budget ms': number(case.budget_ms, '{:g}'), 'MB': number(case.memory_mb, '{:.0f}'), 'note': case.note})
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    for name in columns:
        table.add_column(name, justify='left' if name in ('what', 'way', 'per', 'note') else 'right')
    for i, (case, row) in enumerate(zip(cases, rows)):
        last = cases[max(i - 1, 0)]
        if (case.what.partition(':')[0], case.threads) != (last.what.partition(':')[0], last.threads):
            table.add_section()
        table.add_row(*[row[name] for name in columns])
    return table


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {'processor': platform.processor() or platform.machine(), 'cores': os.cpu_count(),
            'load': round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None,
            'python': platform.python_version(), 'torch': torch.__version__,
            'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'}


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__.splitlines()[0], 'python tools/benchmark.py ops --groups 512 --size 64')
    commands = args.add_subparsers(dest='benchmark', required=True, metavar='{' + ','.join(BENCHMARKS) + '}')
    for name, function in BENCHMARKS.items():
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.add_argument('--json', action='store_true', help='print the cases as JSON and nothing else')
        for option in inspect.signature(function).parameters.values():
            command.add_argument(f'--{option.name.replace("_", "-")}', default=option.default,
                                 type=type(option.default), help='(%(default)r)')
    options = vars(args.parse_args(argv))
    name, as_json = options.pop('benchmark'), options.pop('json')
    where = machine()
    if not as_json:
        print(f'{name}: ' + ', '.join(f'{key} {value}' for key, value in where.items()))
    cases = BENCHMARKS[name](**options)
    if as_json:
        print(json.dumps({'benchmark': name, 'options': options, 'machine': where,
                          'cases': [dataclasses.asdict(case) for case in cases]}, indent=2))
    else:
        from rich.console import Console
        Console(width=None if sys.stdout.isatty() else 140).print(table_of(cases))
        print('ms: the least of the repeats; CPU ms: of all threads, which other programs disturb less; '
              'faster: than the first way')
    return 0


if __name__ == '__main__':
    run(main)
