"""Embedding by rendered views, what a 3D encoder competes with."""
from __future__ import annotations

import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor

import torch

from clipgs_plugin.tools.benchmarks import timing
from clipgs_plugin.tools.benchmarks.inputs import surface_gaussians
from clipgs_plugin.tools.benchmarks.memory import memory_since, reset_memory, synchronised
from clipgs_plugin.tools.benchmarks.timing import Case


def views(teacher: str = 'ViT-B-32', views: str = '6,12', points: str = '2000,20000', device: str = 'cpu',
          threads: int = 2, seconds: float = 0.5) -> list[Case]:
    """Time the embedding of one object by rendered views of the teacher's size, and its two halves: rendering and the
    image tower, which may have random weights. MB is the growth of the process on a CPU, weights included, and the
    peak of the tensors on a GPU."""
    cases = []
    for num_views in map(int, views.split(',')):
        for count in map(int, points.split(',')):
            context = multiprocessing.get_context('spawn')  # memory is measured in a process of its own
            with ProcessPoolExecutor(1, mp_context=context) as process:
                measured = process.submit(time_views, teacher, num_views, count, device, threads, seconds).result()
            cases += [Case(f'{num_views} views, {count:,} Gaussians: {part}', 'fp32', threads, ms, cpu_ms, 'object',
                           memory_mb=memory_mb) for part, (ms, cpu_ms, memory_mb) in measured.items()]
    return cases


@torch.no_grad()
def time_views(teacher: str, num_views: int, points: int, device: str, threads: int, seconds: float,
               precision: str = 'fp32') -> dict[str, tuple[float, float, float | None]]:
    """Return wall and CPU milliseconds of an object and peak megabytes, for the whole and its halves."""
    from clipgs_plugin import GaussianBatch
    from clipgs_plugin.models import MultiViewCLIP, OpenCLIPTeacher

    torch.set_num_threads(threads)
    objects = GaussianBatch.from_clouds([surface_gaussians(points)]).to(device)
    MultiViewCLIP(OpenCLIPTeacher('toy-clip'), num_views=1).to(device)(objects)  # loads libraries and kernels
    before = reset_memory(device)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # random weights take the same time
        model = MultiViewCLIP(OpenCLIPTeacher(teacher, precision=precision), num_views=num_views).to(device)
    images = model.render_views(objects.to_clouds())[0]
    parts = {'embedding': lambda: model(objects), 'rendering': lambda: model.render_views(objects.to_clouds()),
             'image tower': lambda: model.teacher.encode_views(images)}
    measured = {}
    for part, function in parts.items():
        ms, cpu_ms = timing.measure([synchronised(function, device)], seconds)[0]
        measured[part] = ms, cpu_ms, None if measured else memory_since(before, device)
    return measured
