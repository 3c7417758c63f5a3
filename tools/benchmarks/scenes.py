"""Time and memory of splitting a scene into objects."""
from __future__ import annotations

import math
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.tools.benchmarks.memory import memory_since, reset_memory
from clipgs_plugin.tools.benchmarks.start import in_process
from clipgs_plugin.tools.benchmarks.timing import Case

BUDGET_S = 120.0   # of all stages but the spheres, at a million Gaussians
OBJECT = 10_000    # Gaussians of an object
FLOOR = 0.2        # share of the floor
FLOATERS = 0.02    # share of floaters
EMBEDDED = 32      # objects
STAGES = ('read', 'room', 'clusters', 'spheres', 'gather', 'balance', 'coloured', 'write')
EMBEDDING = {'embed one by one': 1, 'embed in batches': 16}


def scene_speed(gaussians: int = 1_000_000, sh_degrees: str = '0,3', seed: int = 0, threads: int = 2) -> list[Case]:
    """Time each stage of tools/label_scene.py on scenes of toy objects, which repeat with turns and sizes, a floor and
    floaters. Memory is the peak of the process that runs all stages but the embedding, above its imports. The stage
    'all' is the sum of those that a run by clusters has, without the embedding, which is timed for up to 32 objects."""
    cases = []
    for degree in map(int, sh_degrees.split(',')):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'scene.ply'
            in_process(write_scene, path, gaussians, degree, seed)
            times, peak, found = in_process(time_stages, path, threads)
        what = f'SH {degree}: {gaussians:,} Gaussians'
        cases += [Case(what, name, threads, *times[name], 'scene', note=found if name == 'clusters' else '')
                  for name in (*STAGES, *EMBEDDING)]
        total = [sum(times[name][i] for name in STAGES if name != 'spheres') for i in range(2)]
        cases.append(Case(what, 'all', threads, *total, 'scene', memory_mb=peak, note='without spheres and embedding',
                          budget_ms=1e3 * BUDGET_S * gaussians / 1e6))
    return cases


def write_scene(path: Path, gaussians: int, sh_degree: int, seed: int) -> None:
    """Write a scene of toy objects in rows on a floor, with floaters."""
    from clipgs_plugin import GaussianCloud, write_gaussians
    from clipgs_plugin.ops.rotations import y_rotation
    from clipgs_plugin.structures.discs import surface_discs
    from clipgs_plugin.toy_world import make_object, object_specs
    rng = np.random.default_rng(seed)
    count = max(1, round(gaussians * (1 - FLOOR - FLOATERS) / OBJECT))
    toys = [make_object(spec, OBJECT).gaussians for spec in object_specs(min(count, 20), seed, 'test')]
    columns, step, clouds = math.ceil(math.sqrt(count)), 2.3, []
    for i in range(count):
        turned = toys[i % len(toys)].transform(y_rotation(rng.uniform(0, 2 * math.pi)) * rng.uniform(0.6, 1.0))
        place = torch.tensor([i % columns * step, -float(turned.means[:, 1].min()), i // columns * step])
        clouds.append(turned.replace(means=turned.means + place))
    side, ground = columns * step, round(FLOOR * gaussians)
    points = rng.uniform(-1.5, side, (ground, 3)) * [1, 0, 1] + rng.normal(0, 0.003, (ground, 3))
    clouds.append(surface_discs(points, np.tile([0.0, 1, 0], (ground, 1)), np.full((ground, 3), 0.6)))
    strays = clouds[0][torch.from_numpy(rng.integers(len(clouds[0]), size=gaussians - sum(map(len, clouds))))]
    places = rng.uniform([-1.5, 0, -1.5], [side, 2, side], (len(strays), 3)).astype(np.float32)
    clouds.append(strays.replace(means=torch.from_numpy(places)))
    fields = zip(*([value for _, value in cloud.fields()] for cloud in clouds))
    scene = GaussianCloud(*map(torch.cat, fields)).with_sh_degree(sh_degree)
    write_gaussians(scene[torch.from_numpy(rng.permutation(len(scene)))], path)


def time_stages(path: Path, threads: int) -> tuple[dict[str, tuple[float, float]], float | None, str]:
    """Return wall and CPU milliseconds of each stage, the peak of memory in megabytes, and what was found."""
    from clipgs_plugin import CLIPGSInferencer, read_gaussians, scenes, write_gaussians
    from clipgs_plugin.scenes.table import describe_objects
    torch.set_num_threads(threads)
    times, base = {}, reset_memory('cpu')

    def timed(name, function):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        times[name] = (1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))
        return result

    cloud = timed('read', lambda: read_gaussians(path))
    room = timed('room', lambda: scenes.find_room(cloud))
    rest = cloud[~room]
    labels = torch.full((len(cloud),), -1)
    labels[~room] = timed('clusters', lambda: scenes.split_by_clusters(rest, room=False))
    timed('spheres', lambda: scenes.split_by_spheres(rest, room=False))
    objects = scenes.SceneObjects.from_labels(labels)
    timed('gather', lambda: describe_objects(cloud, objects))

    def write() -> None:
        for number, members in enumerate(objects.members):
            write_gaussians(cloud[members], path.with_name(f'{number:04d}.ply'))
        write_gaussians(cloud, path.with_name('labelled.ply'),
                        columns={'object': labels.clamp_min(0).numpy().astype(np.int32)})
    timed('write', write)
    timed('coloured', lambda: write_gaussians(scenes.colored(cloud, objects), path.with_name('coloured.ply')))
    timed('balance', lambda: scenes.balance_colors(cloud, objects))
    peak, clipgs, some = memory_since(base, 'cpu'), CLIPGSInferencer('clipgs_toy'), objects.members[:EMBEDDED]
    scenes.embed_objects(clipgs, cloud, some[:1])  # compiles what is compiled once
    for name, size in EMBEDDING.items():
        timed(name, partial(scenes.embed_objects, clipgs, cloud, some, batch_size=size))
    return times, peak, f'{len(objects)} objects'
