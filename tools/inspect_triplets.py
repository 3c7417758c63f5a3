"""Check a triplet dataset for damage and summarise its contents on an HTML page."""
from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from clipgs_plugin.tools._program import WORLD, parser, progress_bar, run

PRINTED = 20  # maximum number of printed problems; the page and --json have more
SHEETS = {'.webp': dict(format='WEBP', quality=80, method=6), '.png': dict(format='PNG', optimize=True)}


def write_sheet(triplets: Path, path: Path, objects: int, seed: int) -> None:
    """Write the contact sheet of a dataset."""
    from clipgs_plugin.io.files import write_whole
    from clipgs_plugin.triplets.inspection import contact_sheet
    buffer = io.BytesIO()
    contact_sheet(triplets, objects, seed).save(buffer, **SHEETS[path.suffix.lower()])
    write_whole(path, [buffer.getvalue()])


def parse(argv: list[str] | None):
    """Parse and check the options."""
    args = parser(__doc__, WORLD, 'python tools/inspect_triplets.py work_dirs/toy_world')
    args.add_argument('triplets', metavar='OUT', type=Path, help='folder of the dataset')
    args.add_argument('-o', '--out', metavar='PAGE', type=Path, help='page to write (OUT/inspection.html)')
    args.add_argument('--worst', type=int, default=8, metavar='N',
                      help='number of objects of lowest quality to show (%(default)s)')
    args.add_argument('--random', type=int, default=8, metavar='N',
                      help='number of other objects to show (%(default)s)')
    args.add_argument('--seed', type=int, default=0, help='random seed of the other objects (%(default)s)')
    args.add_argument('--contact-sheet', metavar='FILE', type=Path,
                      help='.webp or .png to write, with objects from the worst to the best, views beside Gaussians')
    args.add_argument('--objects', type=int, default=16, metavar='N',
                      help='number of objects on the contact sheet (%(default)s)')
    args.add_argument('--json', action='store_true',
                      help='print everything but the images as JSON, with the sha256 of every shard')
    options = args.parse_args(argv)
    for name in ('worst', 'random', 'seed'):
        if getattr(options, name) < 0:
            args.error(f'--{name} {getattr(options, name)}: expected at least 0')
    if options.objects < 1:
        args.error(f'--objects {options.objects}: expected at least 1')
    sheet = options.contact_sheet
    if sheet and sheet.suffix.lower() not in SHEETS:
        args.error(f'--contact-sheet {sheet}: expected a name that ends in {" or ".join(SHEETS)}')
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)

    from clipgs_plugin.triplets.inspection import inspect, write_page
    print(f'Reading all of {options.triplets}', file=sys.stderr)
    with progress_bar() as bar:
        task = bar.add_task('objects', total=None)
        found = inspect(options.triplets, options.worst, options.random, options.seed,
                        report=lambda done, total: bar.update(task, completed=done, total=total))
    page = options.out or options.triplets / 'inspection.html'
    write_page(found, page)
    sheet = options.contact_sheet
    if sheet and found.problems:
        print(f'{sheet} is not written: a dataset with problems has no contact sheet', file=sys.stderr)
    elif sheet:
        write_sheet(options.triplets, sheet, options.objects, options.seed)
    if options.json:
        print(json.dumps(dict(found.to_dict(), page=str(page)), indent=2))
    else:
        print_summary(found)
        written = f', contact sheet in {sheet}' if sheet and not found.problems else ''
        print(f'{len(found.problems):,} problem{"s" * (len(found.problems) != 1)} found; page in {page}{written}')
    return int(bool(found.problems))


def print_summary(found) -> None:
    """Print counts, statistics and the first problems of an inspection."""
    from clipgs_plugin.triplets.inspection.page import number
    from clipgs_plugin.triplets.inspection.result import COLUMNS
    print(f'{found.objects:,} objects, {len(found.shards):,} shards, sha256 of all shards {found.sha256}')
    print(f'{"per object":28} {"median":>10} {"worst":>10}')
    for name, row in found.statistics().items():
        print(f'{COLUMNS[name][0]:28} {number(row["median"]):>10} {number(row["worst"]):>10}')
    if found.failed:
        print(f'objects that could not be generated: {sum(found.failed.values()):,}')
    for problem in found.problems[:PRINTED]:
        print(f'problem: {problem}')


def cli() -> None:
    """Run as the installed program ``clipgs-inspect``."""
    run(main)


if __name__ == '__main__':
    cli()
