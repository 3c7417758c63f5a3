"""Examine splat files: what they are, what would go wrong with them, and the option that mends it."""
from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._program import FILES, as_called, check_output, parser, progress_bar, run

if TYPE_CHECKING:
    from rich.console import Console

    from clipgs_plugin.apis import Diagnosis

SCHEMA = 1  # version of --json
COLORS = {'ok': 'green', 'note': 'cyan', 'warning': 'yellow', 'error': 'red'}


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, FILES, 'python tools/doctor.py work_dirs/files --model clipgs_toy')
    args.add_argument('files', nargs='+', metavar='FILE', type=Path,
                      help='splat files of any format, or folders of them')
    args.add_argument('--model', help='model to compare with: any name of --model of tools/embed.py, or a published '
                      'point-cloud model of tools/list_backbones.py')
    args.add_argument('--sheet', type=Path, help='.png file of the first readable file in six orientations')
    args.add_argument('--json', action='store_true', help='print the results as JSON')
    options = args.parse_args(argv)
    if options.sheet is not None:
        check_output(args, options.sheet, ('.png',), 'a picture', _open_picture)
    files = _find_files(options.files)

    from clipgs_plugin.apis import diagnose
    from clipgs_plugin.apis.doctor_expectations import expectations
    expected, results = expectations(options.model), []
    with progress_bar() as bar:
        for path in bar.track(files, description='examining'):
            results.append(diagnose(path, expected))
            if not options.json:
                _print(results[-1], brief=len(files) > 1)
    if options.json:
        print(json.dumps(dict(schema=SCHEMA, model=options.model, files=[result.to_dict() for result in results]),
                         indent=2))
    elif len(results) > 1:
        _print_summary(results)
    if options.sheet is not None:
        _write_sheet(options.sheet, results)
    return 1 if any(result.grade == 'error' for result in results) else 0


def _find_files(inputs: list[Path]) -> list[Path]:
    """Return the named files, also missing ones, which get a finding, and the splat files below folders."""
    from clipgs_plugin.io import find_splats, sog
    files = []
    for path in inputs:
        below = [] if not path.is_dir() or (path / sog.META).is_file() else find_splats(path)
        files += below or [path]
    return files


def _open_picture(path: Path) -> None:
    from PIL import Image
    with Image.open(path) as picture:
        picture.verify()


def _console() -> Console:
    from rich.console import Console
    return Console(highlight=False, soft_wrap=True)


def _print(result: Diagnosis, brief: bool) -> None:
    """Print the findings of one file, one line each; a brief list leaves out what is fine."""
    from rich.text import Text
    console = _console()
    console.print(Text(result.path, 'bold'))
    for finding in result.findings:
        if brief and finding.grade == 'ok' and finding.check != 'file':
            continue
        console.print(Text.assemble('  ', (f'{finding.grade:8}', COLORS[finding.grade]), as_called(str(finding))))


def _print_summary(results: list[Diagnosis]) -> None:
    """Print a table of all files, with the checks that found something."""
    from rich.table import Table
    from rich.text import Text
    table = Table('file', 'Gaussians', 'grade', 'warnings and errors', 'notes')
    for result in results:
        named = {grade: ', '.join(found.check for found in result.findings if found.grade == grade)
                 for grade in COLORS}
        count = f'{result.facts["gaussians"]:,}' if result.facts else ''
        table.add_row(Text(Path(result.path).name), count, Text(result.grade, COLORS[result.grade]),
                      ', '.join(filter(None, [named['error'], named['warning']])), named['note'])
    _console().print(table)


def _write_sheet(path: Path, results: list[Diagnosis]) -> None:
    """Write the six orientations of the first readable file."""
    from clipgs_plugin import read_gaussians
    from clipgs_plugin.visualization.orientations import orientation_sheet
    first = next((result for result in results if result.facts.get('visible')), None)
    if first is None:
        print(f'{path} was not written, because no file could be read', file=sys.stderr)
        return
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # dropped Gaussians are a finding
        cloud = read_gaussians(first.path, clean=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    orientation_sheet(cloud, Path(first.path).name).save(path)
    print(f'six orientations of {first.path} in {path}', file=sys.stderr)


def cli() -> None:
    """Run as the installed program ``clipgs-doctor``."""
    run(main)


if __name__ == '__main__':
    cli()
