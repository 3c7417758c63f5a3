"""List the datasets that the library reads: which are here, and where the others are."""
from __future__ import annotations

import difflib
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path

from clipgs_plugin.tools._program import as_called, parser, run


def main(argv: list[str] | None = None) -> int:
    from clipgs_plugin.registry.catalogue import load_catalogue
    catalogue = load_catalogue('datasets')
    args = parser(__doc__, 'python tools/list_datasets.py --root data', 'python tools/list_datasets.py modelnet-splats')
    args.add_argument('names', metavar='NAME', nargs='*', help='datasets to print in full instead of the table')
    args.add_argument('--root', type=Path, default=Path(os.environ.get('CLIPGS_DATA', 'data')),
                      help='folder of the datasets ($CLIPGS_DATA or ./data)')
    args.add_argument('--json', action='store_true', help='print a JSON list with all details')
    options = args.parse_args(argv)
    for name in options.names:
        if name not in catalogue:
            close = difflib.get_close_matches(name.lower(), catalogue, n=3, cutoff=0.4) or catalogue
            args.error(f'no dataset is named {name!r}; close names are {", ".join(close)}')

    if not options.root.is_dir():
        print(f'note: the folder of the datasets, {options.root}, does not exist; --root names another',
              file=sys.stderr)
    found = [details(name, catalogue[name], options.root) for name in options.names or catalogue]
    if options.json:
        print(json.dumps(found, indent=2))
    elif options.names:
        for entry in found:
            _print_entry(entry)
    else:
        _print_table(found)
        print(as_called('How to get one and how it lies on disk: python tools/list_datasets.py NAME'))
    return 0


def details(name: str, entry: dict, root: Path) -> dict:
    """Return an entry of the catalogue with its path below ``root``, or None if no file is there."""
    path = root / entry['folder'] if 'folder' in entry else None
    return {'name': name, **entry, 'path': str(path) if path is not None and _has_files(path) else None}


def _has_files(path: Path) -> bool:
    return any(not each.name.startswith('.') for each in path.iterdir()) if path.is_dir() else path.is_file()


def _print_table(entries: list[dict]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for key, column in (('name', 'name'), ('dataset', 'class')):
        table.add_column(column, no_wrap=True, min_width=max(len(entry[key]) for entry in entries))
    table.add_column('files', no_wrap=True, min_width=len('your own'))
    for column in ('objects', 'licence'):
        table.add_column(column, no_wrap=True, overflow='ellipsis', max_width=24)  # in full with NAME
    for entry in entries:
        here = 'here' if entry['path'] else 'missing' if 'folder' in entry else 'your own'
        table.add_row(entry['name'], entry['dataset'], here, entry.get('objects', '-'), entry['licence'])
    Console().print(table)


def _print_entry(entry: dict) -> None:
    columns = shutil.get_terminal_size().columns
    print(f'{entry["name"]} ({entry["path"] or "not here"})')
    for key in ('page', 'licence', 'objects', 'size', 'layout', 'splits', 'up', 'needs', 'prepare', 'config'):
        if key in entry:
            text = ', '.join(entry[key]) if isinstance(entry[key], list) else str(entry[key])
            print(textwrap.fill(text, columns, initial_indent=f'  {key:<9}', subsequent_indent=' ' * 11,
                                break_long_words=False, break_on_hyphens=False))
    if 'folder' in entry:
        extra = ", labels='LIST'" if entry['dataset'] == 'ObjaverseLVIS' else ''
        print(f"  code     dataset=dict(type='{entry['dataset']}', root='data/{entry['folder']}'{extra})")
    print()


def cli() -> None:
    """Run as the installed program ``clipgs-list-datasets``."""
    run(main)


if __name__ == '__main__':
    cli()
