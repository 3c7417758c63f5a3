"""Embedding of many files: the program beside the encoder alone."""
from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from clipgs_plugin.tools.benchmarks.figures import Figure, figure
from clipgs_plugin.tools.benchmarks.inputs import surface_gaussians
from clipgs_plugin.tools.benchmarks.timing import Case, beside_first

if TYPE_CHECKING:
    from clipgs_plugin import CLIPGSInferencer


def embed_files(files: int = 200, points: int = 10_000, model: str = 'clipgs_toy', source: str = '',
                batch_size: int = 16, workers: int = 2, threads: int = 2, rounds: int = 2, device: str = 'cpu',
                precision: str = 'fp32') -> list[Case]:
    """Time the embedding of files: the encoder alone on prepared objects in memory, one file after another as embed.py
    once did, and the stream of embed.py without the start of its processes, which is the difference of a run over all
    files and one over a quarter; source: folder of splats to draw points from."""
    from clipgs_plugin import CLIPGSInferencer
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            paths = write_files(Path(folder), files, points, source)
            clipgs = CLIPGSInferencer(model, device=device).with_precision(precision)
            prepared = [clipgs.prepare(path) for path in paths]
            ways = {'encoder alone': lambda: encoder_alone(clipgs, prepared, batch_size),
                    'one after another': lambda: one_after_another(clipgs, paths),
                    'stream': lambda: stream(clipgs, paths, batch_size, workers),
                    'start': lambda: stream(clipgs, paths[:files // 4], batch_size, workers)}
            found = {way: min(clocked(run) for _ in range(rounds)) for way, run in ways.items()}
            start = found.pop('start')
            found['stream'] = tuple((whole - part) * files / (files - files // 4)
                                    for whole, part in zip(found['stream'], start))
            what = f'{files} files of {points:,} Gaussians, {model} in {precision} on {device}'
            return beside_first([Case(what, way, threads, 1e3 * seconds / files, 1e3 * cpu / files, 'object')
                                 for way, (seconds, cpu) in found.items()])
    finally:
        torch.set_num_threads(before)


def precision(files: int = 50, points: int = 10_000, model: str = 'clipgs_uni3d-s_uni3d-init_20e_objaverse',
              source: str = '', batch_size: int = 8, device: str = 'cpu') -> list[Figure]:
    """Compare embeddings by the encoder in bf16 with those in fp32; source: folder of splats to draw points from."""
    from clipgs_plugin import CLIPGSInferencer
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        clipgs = CLIPGSInferencer(model, device=device)
        prepared = [clipgs.prepare(path) for path in write_files(Path(folder), files, points, source)]
    found = [encoder_alone(each, prepared, batch_size) for each in (clipgs, clipgs.with_precision('bf16'))]
    cosines = (found[0] * found[1]).sum(1)
    return [figure(f'cosine with fp32, {model}', 'bf16', cosines.tolist(), f'least {float(cosines.min()):.5f}')]


def write_files(folder: Path, files: int, points: int, source: str) -> list[Path]:
    """Write random parts of the splats of a folder, or of a torus."""
    from clipgs_plugin import read_gaussians, write_gaussians
    from clipgs_plugin.io import find_splats
    g = torch.Generator().manual_seed(0)
    whole = [cloud for cloud in map(read_gaussians, find_splats(source)) if len(cloud) >= points] if source else []
    clouds = itertools.cycle(whole or [surface_gaussians(2 * points)])
    paths = [folder / f'{i:05d}.ply' for i in range(files)]
    for path, cloud in zip(paths, clouds):
        write_gaussians(cloud[torch.randperm(len(cloud), generator=g)[:points]], path)
    return paths


def clocked(run: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of a call, those of its processes as well."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    run()
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu


def encoder_alone(clipgs: CLIPGSInferencer, prepared: list, batch_size: int) -> torch.Tensor:
    """Encode objects in memory, (n, E)."""
    return torch.cat([clipgs.encode(prepared[start:start + batch_size])
                      for start in range(0, len(prepared), batch_size)])


def one_after_another(clipgs: CLIPGSInferencer, paths: list[Path]) -> None:
    """Read, prepare and encode one file at a time."""
    for path in paths:
        clipgs.embed_gaussians(path)


def stream(clipgs: CLIPGSInferencer, paths: list[Path], batch_size: int, workers: int) -> None:
    """Embed files as the program does."""
    from clipgs_plugin.apis import stream_embeddings
    for _ in stream_embeddings(clipgs, paths, batch_size=batch_size, workers=workers):
        pass
