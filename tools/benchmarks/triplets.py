"""Generation and storage of triplets."""
from __future__ import annotations

import tempfile

import numpy as np
import torch

from clipgs_plugin.tools.benchmarks.timing import Case, compare, on_threads


def triplets(meshes: str = '', up: str = 'y', count: int = 6, threads: str = '1') -> list[Case]:
    """Time each step from a mesh to a stored triplet: views by each renderer, fits, storage, random reads.

    The meshes are ``count`` of the folder ``meshes``, sampled evenly.
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
    """Render training and held-out views of each mesh, (V, H, W, 4) each."""
    from clipgs_plugin.generation.rendering import render_mesh
    viewmats = np.concatenate([rule.train_cameras(), rule.test_cameras()])
    return [render_mesh(mesh, viewmats, rule.intrinsics(), rule.size, rule.size, renderer=renderer) for mesh in objects]


def agreement(first: list[np.ndarray], second: list[np.ndarray]) -> str:
    """Compare the images of two renderers on white, view by view."""
    from clipgs_plugin.generation.objects import composite
    from clipgs_plugin.ops import psnr
    white = 1.0, 1.0, 1.0
    a, b = (torch.from_numpy(np.concatenate([composite(images, white) for images in views]))
            for views in (first, second))
    values = psnr(a, b)
    return f'PSNR {values.median():.1f} dB to the first, {values.min():.1f} at worst'


def fit_all(objects: list, views: list[np.ndarray], rule, preset: str) -> tuple[Case, list]:
    """Time the fit of each mesh with a preset; return the case and the fitted clouds."""
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
    """Time encoding of objects and random reads."""
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
    for case in cases:  # three tasks, not three ways of one
        case.times = case.cpu_times = None
    return cases
