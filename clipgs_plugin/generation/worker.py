"""A chunk of objects: from what is listed to the bytes of their samples, or why there are none."""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from clipgs_plugin.generation.builders import ToFit, fit_together, prepare
from clipgs_plugin.generation.objects import Listed, Triplet
from clipgs_plugin.generation.rendering import NoRenderer
from clipgs_plugin.generation.settings import GenerationSettings
from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.triplets.samples import Sample, encode_sample

CAMERA_AXES = 'world to camera, OpenCV: x right, y down, z forward; pixels, the centre of the first at (0.5, 0.5)'
# Quality is measured of what is not fitted where something was lost.
UNFITTED = dict(points='oriented discs of points', splats='splats kept as they came',
                cut='splats cut to the SH degree or the number of Gaussians that the settings say, fit.sh_degree or '
                    'splats.max_gaussians')


@dataclass(frozen=True)
class Outcome:
    """What became of an object; small but for the bytes, and fit to cross processes.

    Attributes:
        sample: To be written; None where it failed.
        failure: Why it failed, a line of ``failed.jsonl``.
        timing: Its line of ``timings.jsonl``.
        unfitted: What it is where there were no views to fit it to, in words.
    """

    sample: Sample | None = None
    failure: dict | None = None
    timing: dict = field(default_factory=dict)
    unfitted: str | None = None


def failed(listed: Listed, error: Exception) -> Outcome:
    """The outcome of an object that an error has ended."""
    return Outcome(failure=dict(uid=listed.uid, path=str(listed.path), error=type(error).__name__, message=str(error)))


def make_chunk(chunk: Sequence[Listed], watch: Callable[[int], None], source: Source, settings: GenerationSettings,
               root: Path) -> list[Outcome]:
    """Make objects, on CUDA with one fit for all; one that fails leaves the others.

    Args:
        chunk: The objects.
        watch: Called before each step with the number of objects that it is for.
        source: Where they were listed.
        settings: Those of the dataset.
        root: To which paths in records are relative.

    Returns:
        An outcome for each object.

    Raises:
        ImportError, NoRenderer, RuntimeError: This machine lacks a package or a renderer, or its GPU has failed, and
            every other object would fail alike.
    """
    jobs = [_Job(listed) for listed in chunk]
    for job in jobs:
        watch(1)
        with job.trying():
            job.triplet, job.views = prepare(job.listed, source, settings)
    to_fit = [job for job in jobs if job.views is not None]
    # On the CPU a common fit saves nothing, and bytes are not to depend on how many share it.
    together = settings.device_type == 'cuda' and len(to_fit) > 1
    for batch in [to_fit] if together else [[job] for job in to_fit]:
        _fit(batch, settings, watch)
    for job in jobs:
        if job.failure is None:
            watch(1)
            with job.trying():
                job.sample = _encode(job.triplet, settings, root)
    return [job.outcome() for job in jobs]


def legible(value):
    """A value of JSON whose texts are Unicode: bytes of a name that are not are escaped, ``caf\\udce9``."""
    if isinstance(value, str):
        return value.encode('utf-8', 'backslashreplace').decode()
    if isinstance(value, Mapping):
        return {legible(key): legible(item) for key, item in value.items()}
    return [legible(item) for item in value] if isinstance(value, list | tuple) else value


def _of_the_machine(error: Exception) -> bool:
    """Whether an error tells of the machine, not of an object: a context of CUDA, for one, is lost for good."""
    return (isinstance(error, (ImportError, NoRenderer, getattr(torch, 'AcceleratorError', ())))
            or (isinstance(error, RuntimeError) and str(error).startswith('CUDA error')))


class _Job:
    """An object on its way, and what was said and went wrong on it."""

    def __init__(self, listed: Listed) -> None:
        self.listed = listed
        self.triplet: Triplet | None = None
        self.views: ToFit | None = None
        self.sample: Sample | None = None
        self.failure: Outcome | None = None
        self.notes: list[str] = []

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Take down what is said within, and why it ends early."""
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter('always', UserWarning)
            try:
                yield
            except Exception as error:  # readers of files of any origin raise anything, and one must not stop a run
                if _of_the_machine(error):
                    raise
                self.failure = failed(self.listed, error)
        self.notes += [str(note.message) for note in notes]

    def outcome(self) -> Outcome:
        return self.failure or Outcome(
            self.sample, timing=dict(uid=self.listed.uid, seconds=self.triplet.seconds, notes=self.notes),
            unfitted=None if self.views else UNFITTED['cut' if self.triplet.quality else self.triplet.source['kind']])


def _fit(jobs: list[_Job], settings: GenerationSettings, watch: Callable[[int], None]) -> None:
    """Fit objects together; where that fails, one by one, so that the bad one is told from the others."""
    watch(len(jobs))
    try:
        fitted = fit_together([job.triplet for job in jobs], [job.views for job in jobs], settings)
    except Exception as error:
        if _of_the_machine(error):
            raise
        if len(jobs) == 1:
            jobs[0].failure = failed(jobs[0].listed, error)
            return
        note = f'fitted alone, as the fit of {len(jobs)} together failed: {type(error).__name__}: {error}'
    else:
        for job, triplet in zip(jobs, fitted):
            job.triplet = triplet
        return
    for job in jobs:  # here, where the error no longer holds the memory of all
        job.notes.append(note)
        _fit([job], settings, watch)


def _encode(triplet: Triplet, settings: GenerationSettings, root: Path) -> Sample:
    listed, source = triplet.listed, dict(triplet.source)
    path = listed.path.absolute()
    if path != root and path.anchor == root.anchor:
        source['file'] = Path(os.path.relpath(path, root)).as_posix()
    if triplet.viewmats is not None:
        source['cameras'] = dict(axes=CAMERA_AXES, viewmats=triplet.viewmats.tolist(),
                                 intrinsics=triplet.intrinsics.tolist())
    told = dict(captions=triplet.captions, category=listed.category, split=listed.split, source=source,
                quality=triplet.quality, attributes=listed.attributes)
    return encode_sample(
        listed.uid, triplet.gaussians, triplet.views, **legible(told),
        cameras='dataset' if triplet.viewmats is None else 'own', sh_degree=settings.fit.sh_degree,
        dtype=settings.dtype, webp_quality=settings.webp_quality)
