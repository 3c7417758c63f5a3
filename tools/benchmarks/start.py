"""From the file of a published model to a loaded model."""
from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from clipgs_plugin.tools.benchmarks.timing import Case

BUDGET_MS = 1000.0  # of a later opening
# The wrapper of each family's training code, and its names of the projection and of the temperature.
LAYOUTS = {'uni3d': ('module', 'module.point_encoder.trans2embed', 'module.logit_scale')}


def start(names: str = 'uni3d-ti,uni3d-b', repeats: int = 3, threads: int = 2) -> list[Case]:
    """Time the loading of published models by name, from files of random weights in the published layout (Uni3D): the
    first opening, which also writes the copy without pickle, and a later one, which reads the copy. Each opening is a
    process of its own, after its imports and the loading of another model; files are in the page cache."""
    cases = []
    for name in names.split(','):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f'{name}.pt'
            in_process(write_published, name, path)
            copy, size = path.with_name(f'{path.name}.safetensors'), path.stat().st_size / 1e6
            best = {'first': (math.inf, math.inf), 'later': (math.inf, math.inf)}
            for _ in range(repeats):
                copy.unlink(missing_ok=True)
                for way in best:
                    best[way] = min(best[way], in_process(time_opening, name, path, threads))
            if not copy.is_file():
                raise OSError(f'the first opening of {path} left no copy to time later ones with; check the disk')
        cases += [Case(f'{name}: opening', way, threads, *best[way], 'model', note=f'file of {size:.0f} MB',
                       budget_ms=BUDGET_MS if way == 'later' else None) for way in best]
    return cases


def in_process(function, *arguments):
    """Call a function in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as process:
        return process.submit(function, *arguments).result()


def write_published(name: str, path: Path) -> None:
    """Write random weights as the training code of a model does, in half precision.

    Raises:
        ValueError: The model is of another family than those of ``LAYOUTS``.
    """
    from clipgs_plugin.apis.published import published_config
    from clipgs_plugin.models.checkpoints import export_point_cloud_checkpoint
    from clipgs_plugin.registry import MODELS
    from clipgs_plugin.registry.catalogue import load_catalogue

    catalogue = load_catalogue('checkpoints')
    family = catalogue[name]['family'] if name in catalogue else None
    if family not in LAYOUTS:
        raise ValueError(f'--names {name}: expected models of {", ".join(LAYOUTS)}, such as uni3d-b')
    torch.manual_seed(0)
    encoder = MODELS.build({**published_config(name).model.encoder, 'init_cfg': None})
    export_point_cloud_checkpoint(encoder, path, family)
    wrapper, projection, scale = LAYOUTS[family]
    state = torch.load(path)[wrapper]
    state |= {f'{projection}.{key}': value for key, value in encoder.projection.state_dict().items()}
    state |= {scale: torch.tensor(4.6)}
    torch.save({wrapper: {key: value.half() if value.is_floating_point() else value for key, value in state.items()}},
               path)


def time_opening(name: str, path: Path, threads: int) -> tuple[float, float]:
    """Return wall and CPU milliseconds from the name of a model to the model with its weights."""
    import warnings

    from clipgs_plugin import get_model

    torch.set_num_threads(threads)
    os.environ['CLIPGS_CHECKPOINTS'] = str(path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        get_model('clipgs_toy')  # imports, registries, catalogue
    wall, cpu = time.perf_counter(), time.process_time()
    get_model(name)
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
