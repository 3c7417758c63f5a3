"""Embeddings of any number of files: reading, preparing and encoding overlap, and bad files do not stop the others."""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.apis.inferencer import CLIPGSInferencer
from clipgs_plugin.apis.preparation import Transform, prepare_object, turned
from clipgs_plugin.io import read_gaussians
from clipgs_plugin.io.files import arrays_from_cloud, cloud_from_arrays
from clipgs_plugin.parallel import in_order, make_executor
from clipgs_plugin.parallel.ahead import ahead
from clipgs_plugin.parallel.cluster import connected, missing_on_node
from clipgs_plugin.structures import GaussianCloud

ENGINES = 'here', 'ray'
FILES_AT_ONCE = 4       # that a process prepares and sends
FILES_PER_WORKER = 32   # that are worth the start of a process
MAX_WORKERS = 16
TIME_LIMIT = 300.0      # seconds
Read = Callable[[str], tuple[GaussianCloud, dict]]


@dataclass(frozen=True)
class Embedded:
    """Embedding of a file.

    Attributes:
        path: The file.
        embedding: Unit vector, (E,) float32 on the CPU.
        notes: Numbers of ``gaussians`` and ``sh_degree`` of the object, and what was found when it was read.
    """

    path: str
    embedding: Tensor
    notes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """File that could not be embedded.

    Attributes:
        path: The file.
        error: Type of the error.
        message: The reason, which names the file.
    """

    path: str
    error: str
    message: str


@dataclass(frozen=True)
class _Prepared:
    """Object that is ready for the encoder, as arrays: tensors would cross processes in shared memory."""

    path: str
    turns: tuple[dict[str, np.ndarray], ...]
    notes: dict
    warnings: tuple[str, ...]


def read_object(path: str) -> tuple[GaussianCloud, dict]:
    """Read a file with y up, with nothing to note."""
    return read_gaussians(path), {}


def default_workers(files: int) -> int:
    """Return a number of worker processes for a number of files; 0 if they are not worth the start of a process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(cores, MAX_WORKERS, files // FILES_PER_WORKER)


def stream_embeddings(inferencer: CLIPGSInferencer, paths: Iterable[str | os.PathLike], read: Read = read_object, *,
                      batch_size: int = 16, turns: int = 1, workers: int = 1, engine: str = 'here',
                      time_limit: float | None = TIME_LIMIT, ray_address: str | None = None,
                      ) -> Iterator[Embedded | Failed]:
    """Embed files; yield an outcome for each, in order.

    Engine ``'here'`` prepares objects in worker processes and encodes them in a thread of this one. Engine ``'ray'``
    does both on the nodes of a cluster, on their GPUs if the inferencer is on one. The embeddings are those of
    :meth:`CLIPGSInferencer.embed_gaussians`. Memory holds a few batches, whatever the number of files.

    Args:
        inferencer: The model.
        paths: Files, taken as they are needed.
        read: Function that reads a file as an object with y up, and notes on it; it is pickled.
        batch_size: Number of objects in a forward pass.
        turns: Number of equal turns about y whose embeddings are averaged.
        workers: Number of processes with one thread each; 0 works in this one, where a file may crash it and has no
            time limit.
        engine: ``'here'`` or ``'ray'``.
        time_limit: Seconds for a file, after which it fails; None sets no limit.
        ray_address: Address of the cluster, see :func:`~clipgs_plugin.parallel.cluster.connected`.

    Raises:
        ValueError: An argument is out of range, the model does not embed, or there is no cluster.
        ImportError: Ray is not installed.

    Example:
        >>> for found in stream_embeddings(CLIPGSInferencer('clipgs_toy'), files, workers=2):
        ...     print(found.path, found.message if isinstance(found, Failed) else found.embedding.shape)
    """
    inferencer.require_embeddings()
    if engine not in ENGINES or batch_size < 1 or turns < 1 or workers < 0:
        raise ValueError(f'engine={engine!r}, batch_size={batch_size}, turns={turns}, workers={workers}: expected '
                         f'engine {" or ".join(ENGINES)}, and numbers of at least 1, workers of at least 0')
    if engine == 'ray' and inferencer.origin is None:
        raise ValueError('nodes of a cluster build the model by its name; give the inferencer a name in place of a '
                         'built model')
    objects = max(1, batch_size // turns)
    prepare = partial(_prepare, read=read, transform=inferencer.transform, turns=turns)
    paths = map(os.fspath, paths)
    if engine == 'ray':
        return _on_cluster(inferencer, prepare, _chunks(paths, objects), time_limit, ray_address)
    if not workers:
        prepared = (outcome for path in paths for outcome in prepare((path,), lambda files: None))
        return _encoded(inferencer, prepared, objects)
    return _here(inferencer, prepare, _chunks(paths, FILES_AT_ONCE), objects, workers, time_limit)


def _here(inferencer: CLIPGSInferencer, prepare: Callable, chunks: Iterator[tuple], objects: int, workers: int,
          time_limit: float | None) -> Iterator[Embedded | Failed]:
    """Prepare in processes, encode in a thread, and leave this thread to what the caller does with the outcomes."""
    executor = make_executor('local', prepare, workers, time_limit)
    prepared = ahead(in_order(executor, chunks, _failed), 2 * objects, executor.stop)
    return ahead(_encoded(inferencer, prepared, objects), 2 * objects, executor.stop)


def _on_cluster(inferencer: CLIPGSInferencer, prepare: Callable, chunks: Iterator[tuple], time_limit: float | None,
                ray_address: str | None) -> Iterator[Embedded | Failed]:
    """Prepare and encode on the nodes of a cluster."""
    gpu = inferencer.device.type == 'cuda'
    build = (*inferencer.origin, inferencer.device.type, inferencer.precision)
    with ExitStack() as stack:
        stack.enter_context(connected(ray_address, gpu))
        executor = make_executor('ray', partial(_embed_on_node, prepare=prepare, build=build), 0, time_limit, gpu)
        outcomes = ahead(in_order(executor, chunks, _failed), 2, executor.stop)
        yield from stack.enter_context(closing(outcomes))


def _chunks(paths: Iterator[str], size: int) -> Iterator[tuple[str, ...]]:
    return iter(lambda: tuple(islice(paths, size)), ())


# In the processes of workers

def _prepare(chunk: Sequence[str], begin_step: Callable[[int], None], read: Read, transform: Transform,
             turns: int) -> list[_Prepared | Failed]:
    """Read and prepare files, with their warnings."""
    outcomes = []
    for path in chunk:
        begin_step(1)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter('always', UserWarning)
            try:
                cloud, found = read(path)
                ready = tuple(arrays_from_cloud(prepare_object(transform, each, path))
                              for each in turned(cloud, turns))
            except Exception as error:  # readers of arbitrary files raise anything, and one must not stop the others
                outcomes.append(_failed(path, error))
                continue
        found = dict(gaussians=len(cloud), sh_degree=cloud.sh_degree, **found)
        outcomes.append(_Prepared(path, ready, found, tuple(str(note.message) for note in notes)))
    return outcomes


def _embed_on_node(chunk: Sequence[str], begin_step: Callable[[int], None], prepare: Callable,
                   build: tuple) -> list[Embedded | Failed]:
    """Embed files on a node of a cluster; its process keeps the model."""
    begin_step(len(chunk))
    inferencer = _built(*build)
    outcomes = [Failed(found.path, found.error, found.message + missing_on_node(found.path))
                if isinstance(found, Failed) else found for found in prepare(chunk, begin_step)]
    begin_step(len(chunk))
    return _encode(inferencer, outcomes)


@lru_cache(maxsize=1)
def _built(model: str, checkpoint: str | None, device: str, precision: str) -> CLIPGSInferencer:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # they were shown where the program runs
        return CLIPGSInferencer(model, checkpoint, device).with_precision(precision)


def _failed(path: str, error: Exception) -> Failed:
    message = str(error)
    return Failed(path, type(error).__name__, message if path in message else f'{path}: {message}')


# Where the encoder is

def _encoded(inferencer: CLIPGSInferencer, outcomes: Iterator[_Prepared | Failed],
             objects: int) -> Iterator[Embedded | Failed]:
    """Encode objects in batches; failures keep their places."""
    with closing(outcomes):
        while batch := list(islice(outcomes, objects)):
            yield from _encode(inferencer, batch)


def _encode(inferencer: CLIPGSInferencer, batch: Sequence[_Prepared | Failed]) -> list[Embedded | Failed]:
    """Encode a batch, or one by one after a failure, so that only the object at fault fails."""
    ready = [found for found in batch if isinstance(found, _Prepared)]
    for text in dict.fromkeys(text for found in ready for text in found.warnings):
        warnings.warn(text, stacklevel=2)
    if not ready:
        return list(batch)
    try:
        rows = iter(_embeddings(inferencer, ready))
    except (ValueError, torch.OutOfMemoryError) as error:
        if len(ready) == 1:
            failure = _failed(ready[0].path, error)
            return [found if isinstance(found, Failed) else failure for found in batch]
    else:
        return [found if isinstance(found, Failed) else _embedded(found, next(rows)) for found in batch]
    return [outcome for found in batch for outcome in _encode(inferencer, [found])]


def _embeddings(inferencer: CLIPGSInferencer, ready: Sequence[_Prepared]) -> Tensor:
    """Return the means over the turns of objects, (n, E), unit."""
    rows = inferencer.encode([cloud_from_arrays(**arrays) for found in ready for arrays in found.turns])
    return normalize(rows.unflatten(0, (len(ready), -1)).mean(1), dim=-1)


def _embedded(found: _Prepared, row: Tensor) -> Embedded | Failed:
    if not row.isfinite().all():
        return Failed(found.path, 'ValueError', f'{found.path}: its embedding is not finite; look at the values of its '
                                                'Gaussians with tools/doctor.py')
    return Embedded(found.path, row, found.notes)
