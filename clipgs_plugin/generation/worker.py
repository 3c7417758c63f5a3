"""Work of a worker: turn a chunk of listed objects into encoded samples, or into reasons why they failed."""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from clipgs_plugin.generation.builders import ToFit, fit_together, prepare
from clipgs_plugin.generation.objects import Listed, Triplet
from clipgs_plugin.generation.rendering import NoRenderer
from clipgs_plugin.generation.settings import GenerationSettings, to_builtin
from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.triplets.samples import Sample, encode_sample

CAMERA_AXES = 'world to camera, OpenCV: x right, y down, z forward; pixels, the centre of the first at (0.5, 0.5)'
# Objects without views to fit to, by what they are; quality is measured only where a splat lost something.
UNFITTED = dict(points='oriented discs of points', splats='splats kept as they came',
                cut='splats cut to the SH degree or the number of Gaussians that the settings say, fit.sh_degree or '
                    'splats.max_gaussians')


@dataclass(frozen=True)
class Outcome:
    """Result of one object, which crosses process boundaries.

    Attributes:
        sample: Encoded sample; None for a failed object.
        failure: Reason of the failure, a line of ``failed.jsonl``.
        timing: Line of the object in ``timings.jsonl``.
        unfitted: Description of an object that was not fitted.
    """

    sample: Sample | None = None
    failure: dict | None = None
    timing: dict = field(default_factory=dict)
    unfitted: str | None = None


def failed_outcome(listed: Listed, error: Exception) -> Outcome:
    """Return the outcome of an object that failed with an error."""
    return Outcome(failure=dict(uid=listed.uid, path=str(listed.path), error=type(error).__name__, message=str(error)))


def make_chunk(chunk: Sequence[Listed], begin_step: Callable[[int], None], source: Source,
               settings: GenerationSettings, root: Path) -> list[Outcome]:
    """Make the triplets of a chunk of objects; on CUDA they are fitted together.

    Args:
        chunk: Objects to make.
        begin_step: Function called before each step with the number of objects in the step.
        source: Source that lists and loads the objects.
        settings: Settings of the dataset.
        root: Folder to which paths in records are relative.

    Returns:
        One outcome for each object; a failed object does not affect the others.

    Raises:
        ImportError, NoRenderer, RuntimeError: This machine lacks a package or a renderer, or its GPU has failed, so
            every other object would fail in the same way.
    """
    jobs = [_Job(listed) for listed in chunk]
    for job in jobs:
        begin_step(1)
        with job.step():
            job.triplet, job.views = prepare(job.listed, source, settings)
    to_fit = [job for job in jobs if job.views is not None]
    # On the CPU a common fit saves no time, and the stored bytes must not depend on the batch size.
    together = settings.device_type == 'cuda' and len(to_fit) > 1
    for batch in [to_fit] if together else [[job] for job in to_fit]:
        _fit(batch, settings, begin_step)
    for job in jobs:
        if job.failure is None:
            begin_step(1)
            with job.step():
                job.sample = _encode(job.triplet, settings, root)
    return [job.outcome() for job in jobs]


def escape_surrogates(value):
    """Escape bytes of file names that are not Unicode, as in ``caf\\udce9``, in all strings of a nested value."""
    return to_builtin(value, lambda leaf: leaf.encode('utf-8', 'backslashreplace').decode()
                      if isinstance(leaf, str) else leaf)


def _stops_the_run(error: Exception) -> bool:
    """Return whether an error is a fault of this machine rather than of an object.

    A lost CUDA context never comes back; older releases of torch mark it by the text of the error only.
    """
    return (isinstance(error, (ImportError, NoRenderer, getattr(torch, 'AcceleratorError', ())))
            or (isinstance(error, RuntimeError) and str(error).startswith('CUDA error')))


class _Job:
    """State of one object, with its warnings and its failure."""

    def __init__(self, listed: Listed) -> None:
        self.listed = listed
        self.triplet: Triplet | None = None
        self.views: ToFit | None = None
        self.sample: Sample | None = None
        self.failure: Outcome | None = None
        self.notes: list[str] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Record the warnings of a step, and the error that ends it."""
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter('always', UserWarning)
            try:
                yield
            except Exception as error:  # readers of arbitrary files raise anything, and one file must not stop a run
                if _stops_the_run(error):
                    raise
                self.failure = failed_outcome(self.listed, error)
        self.notes += [str(note.message) for note in notes]

    def outcome(self) -> Outcome:
        return self.failure or Outcome(
            self.sample, timing=dict(uid=self.listed.uid, seconds=self.triplet.seconds, notes=self.notes),
            unfitted=None if self.views else UNFITTED['cut' if self.triplet.quality else self.triplet.source['kind']])


def _fit(jobs: list[_Job], settings: GenerationSettings, begin_step: Callable[[int], None]) -> None:
    """Fit objects together, or one by one after a failure, so that only the object at fault fails."""
    begin_step(len(jobs))
    try:
        fitted = fit_together([job.triplet for job in jobs], [job.views for job in jobs], settings)
    except Exception as error:
        if _stops_the_run(error):
            raise
        if len(jobs) == 1:
            jobs[0].failure = failed_outcome(jobs[0].listed, error)
            return
        note = f'fitted alone, as the fit of {len(jobs)} together failed: {type(error).__name__}: {error}'
    else:
        for job, triplet in zip(jobs, fitted):
            job.triplet = triplet
        return
    for job in jobs:  # outside of the handler, where the error would keep the memory of all objects alive
        job.notes.append(note)
        _fit([job], settings, begin_step)


def _encode(triplet: Triplet, settings: GenerationSettings, root: Path) -> Sample:
    listed, source = triplet.listed, dict(triplet.source)
    path = listed.path.absolute()
    if path != root and path.anchor == root.anchor:
        source['file'] = Path(os.path.relpath(path, root)).as_posix()
    if triplet.viewmats is not None:
        source['cameras'] = dict(axes=CAMERA_AXES, viewmats=triplet.viewmats.tolist(),
                                 intrinsics=triplet.intrinsics.tolist())
    record = dict(captions=triplet.captions, category=listed.category, split=listed.split, source=source,
                  quality=triplet.quality, attributes=listed.attributes)
    return encode_sample(
        listed.uid, triplet.gaussians, triplet.views, **escape_surrogates(record),
        cameras='dataset' if triplet.viewmats is None else 'own', sh_degree=settings.fit.sh_degree,
        dtype=settings.dtype, webp_quality=settings.webp_quality)
