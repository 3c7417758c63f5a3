"""Measure healthy objects, as a base for the thresholds of tools/doctor.py, and count its false alarms."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._program import parser, run

if TYPE_CHECKING:
    from clipgs_plugin import GaussianCloud
    from clipgs_plugin.apis import Diagnosis

NAMES = ('transparent', 'opaque', 'needles', 'leaves')
LEAST = 200  # Gaussians; smaller files are fixtures


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/dev/doctor_ranges.py --toys 60')
    args.add_argument('--toys', type=int, default=300, help='objects of the toy world, half of each split that no '
                      'model is trained on, compared with clipgs_toy (%(default)s)')
    args.add_argument('--splats', type=Path, help='folder of splat files')
    args.add_argument('--meshes', type=Path, help='folder of meshes, every third of which is covered by 8,000 discs')
    options = args.parse_args(argv)

    from rich.console import Console
    from rich.table import Table

    from clipgs_plugin.apis import diagnose
    from clipgs_plugin.apis.doctor_expectations import expectations
    toy = expectations('clipgs_toy')
    groups = {'toys': (diagnose(cloud, toy) for cloud in _toys(options.toys))}
    if options.splats:
        from clipgs_plugin.io import find_splats
        groups['splats'] = map(diagnose, find_splats(options.splats))
    if options.meshes:
        groups['meshes'] = map(diagnose, _meshes(options.meshes))
    found = {name: [one for one in diagnoses if one.facts.get('gaussians', 0) >= LEAST]
             for name, diagnoses in groups.items()}
    table = Table('', *(f'{len(diagnoses)} {name}' for name, diagnoses in found.items()))
    names = (*NAMES, 'isolated', 'overhang', 'second part', 'warnings', 'notes')
    for row in zip(names, *map(_summary, found.values())):
        table.add_row(*row)
    Console().print(table)
    return 0


def _toys(count: int) -> Iterator[GaussianCloud]:
    from clipgs_plugin.toy_world import make_object
    from clipgs_plugin.toy_world.specs import object_specs
    for split in ('val', 'test'):
        for spec in object_specs(count // 2, 1, split):
            yield make_object(spec).gaussians


def _meshes(folder: Path) -> Iterator[GaussianCloud]:
    from clipgs_plugin.generation.rendering.surfaces import sample_surface
    from clipgs_plugin.generation.sources.mesh import MeshSource
    source = MeshSource()
    for listed in source.list(folder)[::3]:
        yield sample_surface(source.load(listed), 8000, 0).discs()


def _summary(found: list[Diagnosis]) -> list[str]:
    """Return ranges of the measures, and the findings but ``up``, whose note every file has."""
    from clipgs_plugin.apis.doctor_checks import PLANE_SIDE

    def span(values: list[float]) -> str:
        return f'{min(values):.3f} to {max(values):.3f}' if values else '-'

    facts = [one.facts for one in found]
    counts = {grade: Counter(item.check for one in found for item in one.findings
                             if item.grade == grade and item.check != 'up') for grade in ('warning', 'note')}
    return [*(span([fact[name] for fact in facts]) for name in NAMES),
            span([fact['isolated'] / max(fact['visible'], 1) for fact in facts]),
            span([fact['plane']['overhang'] for fact in facts
                  if fact['plane'] and fact['plane']['one_sided'] >= PLANE_SIDE]),
            span([fact['parts'][1] if len(fact['parts']) > 1 else 0.0 for fact in facts]),
            *(', '.join(f'{count} {check}' for check, count in counter.items()) or '0' for counter in counts.values())]


def cli() -> None:
    """Run from the command line."""
    run(main)


if __name__ == '__main__':
    cli()
