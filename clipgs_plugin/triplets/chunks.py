"""A chunk of objects: from what is listed to the bytes of their samples, or why there are none."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clipgs_plugin.triplets.making import ToFit, fit_together, prepare
from clipgs_plugin.triplets.objects import Listed, Triplet
from clipgs_plugin.triplets.samples import Sample, encode_sample
from clipgs_plugin.triplets.settings import GenerationSettings
from clipgs_plugin.triplets.sources.base import Source

AXES = 'world to camera, OpenCV: x right, y down, z forward; pixels, the centre of the first at (0.5, 0.5)'
UNFITTED = dict(points='oriented discs of points', splats='splats as they came')


@dataclass(frozen=True)
class Outcome:
    """What became of an object; small but for the bytes, and fit to cross processes.

    Attributes:
        sample: To be written; None where it failed.
        failure: Why it failed, a line of ``failed.jsonl``.
        timing: Its line of ``timings.jsonl``.
        unfitted: What it is where there were no views to fit it to, in words; none or one.
    """

    sample: Sample | None = None
    failure: dict | None = None
    timing: dict = field(default_factory=dict)
    unfitted: tuple[str, ...] = ()


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
        ImportError: A package is not installed, without which every other object would fail alike.
    """
    objects = [_Object(listed) for listed in chunk]
    for one in objects:
        watch(1)
        with one.trying():
            one.triplet, one.views = prepare(one.listed, source, settings)
    to_fit = [one for one in objects if one.views is not None]
    # On the CPU a common fit saves nothing, and bytes are not to depend on how many share it.
    together = settings.device_type == 'cuda' and len(to_fit) > 1
    for group in [to_fit] if together else [[one] for one in to_fit]:
        watch(len(group))
        _fit(group, settings)
    for one in objects:
        if one.failure is None:
            watch(1)
            with one.trying():
                one.sample = _encode(one.triplet, settings, root)
    return [one.outcome() for one in objects]


class _Object:
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
            except ImportError:
                raise
            except Exception as error:  # readers of files of any origin raise anything, and one must not stop a run
                self.failure = failed(self.listed, error)
        self.notes += [str(note.message) for note in notes]

    def outcome(self) -> Outcome:
        return self.failure or Outcome(
            self.sample, timing=dict(uid=self.listed.uid, seconds=self.triplet.seconds, notes=self.notes),
            unfitted=() if self.views else (UNFITTED[self.triplet.source['kind']],))


def _fit(group: list[_Object], settings: GenerationSettings) -> None:
    """Fit objects together; where that fails, one by one, so that the bad one is told from the others."""
    try:
        found = fit_together([one.triplet for one in group], [one.views for one in group], settings)
    except ImportError:
        raise
    except Exception as error:
        if len(group) == 1:
            group[0].failure = failed(group[0].listed, error)
        else:
            for one in group:
                _fit([one], settings)
    else:
        for one, triplet in zip(group, found):
            one.triplet = triplet


def _encode(triplet: Triplet, settings: GenerationSettings, root: Path) -> Sample:
    listed, source = triplet.listed, dict(triplet.source)
    path = listed.path.absolute()
    if path != root and path.is_relative_to(root):
        source['file'] = path.relative_to(root).as_posix()
    if triplet.viewmats is not None:
        source['cameras'] = dict(axes=AXES, viewmats=triplet.viewmats.tolist(), intrinsics=triplet.intrinsics.tolist())
    return encode_sample(
        listed.uid, triplet.gaussians, triplet.views, captions=triplet.captions, category=listed.category,
        split=listed.split, source=source, quality=triplet.quality, attributes=listed.attributes,
        cameras='dataset' if triplet.viewmats is None else 'own', sh_degree=settings.fit.sh_degree,
        dtype=settings.dtype, webp_quality=settings.webp_quality)
