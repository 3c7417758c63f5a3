"""Diagnosis of splat files: what a file is, what would go wrong with it, and which option mends it."""
from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.apis import doctor_checks  # noqa: F401  registers the checks
from clipgs_plugin.apis.doctor_expectations import Expectations, expectations
from clipgs_plugin.apis.doctor_files import describe_file, foreign_kind
from clipgs_plugin.apis.doctor_findings import CHECKS, Diagnosis, Finding
from clipgs_plugin.apis.doctor_subject import QUANTILES, VISIBLE, Subject
from clipgs_plugin.io import format_of_file
from clipgs_plugin.io.files import refuse_damage
from clipgs_plugin.structures import GaussianCloud


def diagnose(
    path_or_cloud: str | os.PathLike | GaussianCloud,
    model: str | Expectations | None = None,
) -> Diagnosis:
    """Examine a splat file or a cloud by every check of ``CHECKS``.

    A file that cannot be read has one finding, ``file``, of grade ``error``. If only some Gaussians are invalid, the
    finding ``values`` names them, and the others are examined.

    Args:
        path_or_cloud: Path of a file, or a cloud.
        model: Name of a model, whose expectations the object is compared with; see :func:`expectations`.

    Raises:
        FileNotFoundError: The model is unknown.
    """
    expected = model if isinstance(model, Expectations) else expectations(model)
    if isinstance(path_or_cloud, GaussianCloud):
        return _examine('cloud', path_or_cloud.to('cpu'), expected, {}, [])
    path = Path(path_or_cloud)
    try:
        format = format_of_file(path)
        with (refuse_damage(path, f'{format.description} file'), np.errstate(all='ignore'),
              warnings.catch_warnings(record=True) as notes):
            warnings.simplefilter('always')
            cloud = format.read(path)
            facts = describe_file(path, format)
    except (ValueError, OSError, ImportError) as error:
        return Diagnosis(str(path), (_unreadable(path, error),))
    kind = f'{facts["format"]} {facts["version"]}'.strip()
    found = Finding('file', 'ok', f'{kind}, {facts["bytes"]:,} bytes, {len(cloud):,} Gaussians of SH degree '
                    f'{cloud.sh_degree}' + ''.join(f'; {note.message}'.replace(f'{path}: ', '') for note in notes))
    return _examine(str(path), cloud, expected, facts, [found])


def _unreadable(path: Path, error: Exception) -> Finding:
    """Name the format and the fault of a file that cannot be read."""
    kind = foreign_kind(path)
    if not kind and path.is_file():
        try:
            kind = format_of_file(path).description
        except ValueError:
            kind = 'unknown format'
    reason = str(error).removeprefix(f'{path}: ')
    return Finding('file', 'error', f'{kind}: {reason}' if kind else reason)


def _examine(name: str, cloud: GaussianCloud, model: Expectations, facts: dict, findings: list[Finding]) -> Diagnosis:
    """Check the values first, then the valid Gaussians by every check."""
    bad = cloud.invalid()
    good = cloud[~bad]
    findings.append(_values(cloud, bad))
    facts = dict(**facts, gaussians=len(cloud), sh_degree=cloud.sh_degree, invalid=int(bad.sum()))
    if len(good):
        subject = Subject(good)
        for check, function in CHECKS.items():
            verdict = function(subject, model)
            if verdict is not None:
                findings.append(Finding(check, *verdict))
        facts.update(measures(subject))
    return Diagnosis(name, tuple(findings), facts)


def _values(cloud: GaussianCloud, bad: torch.Tensor) -> Finding:
    """Count invalid Gaussians, with the reason and index of the first."""
    if not len(cloud):
        return Finding('values', 'error', 'no Gaussians', '', 'export the file again')
    if not bool(bad.any()):
        return Finding('values', 'ok', 'all finite')
    first = int(bad.nonzero()[0])
    try:
        cloud[first].validate('Gaussian')
        reason = 'invalid'
    except ValueError as error:
        reason = str(error).removeprefix('Gaussian: ').partition(' in ')[0]
    return Finding('values', 'error', f'{int(bad.sum()):,} of {len(cloud):,} Gaussians are invalid, the first at index '
                   f'{first}: {reason}', 'programs refuse the file',
                   'python tools/convert_gaussians.py FILE OUT.ply --clean')


def measures(subject: Subject) -> dict:
    """Return the numbers behind the findings: plain data with stable names, documented in docs/doctor.md."""
    def quantiles(values: np.ndarray) -> dict[str, float]:
        return {str(level): float(f'{np.quantile(values, level):.6g}') for level in QUANTILES}

    plane, sizes = subject.plane, subject.sizes
    return dict(
        visible=int((subject.opacities >= VISIBLE).sum()), transparent=subject.transparent, opaque=subject.opaque,
        needles=subject.needles, leaves=subject.leaves, extent=subject.extent,
        farthest=float(subject.distances.max() / subject.extent), isolated=int(subject.isolated.sum()),
        huge=int(subject.huge.sum()), copies=subject.copies,
        parts=[float(share) for share in subject.parts[:5]],
        plane=None if plane is None else dict(share=plane.share, one_sided=plane.one_sided, overhang=plane.overhang,
                                              normal=[float(x) for x in plane.normal]),
        quantiles=dict(opacity=quantiles(subject.opacities), longest=quantiles(sizes[:, 2]),
                       middle=quantiles(sizes[:, 1]), shortest=quantiles(sizes[:, 0]),
                       colour=quantiles(subject.colors)))

