"""List the models that embed splats by name: size, CLIP model, licence, and whether their files are here."""
from __future__ import annotations

import json

from clipgs_plugin.tools._program import as_called, parser, run

LICENCE_FROM = 96  # columns


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/list_models.py --json')
    args.add_argument('--ready', action='store_true', help='list only models whose files are here')
    args.add_argument('--json', action='store_true', help='print a JSON list')
    options = args.parse_args(argv)

    from clipgs_plugin import list_models
    models = [name for name in list_models() if name.family and (name.is_ready or not options.ready)]
    if options.json:
        print(json.dumps([name.to_dict() for name in models], indent=2))
        return 0
    _print_table(models)
    if any(not name.is_ready for name in models):
        print(as_called('Get a missing file: python tools/download.py NAME'))
    return 0


def _print_table(models: list) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from clipgs_plugin.apis.model_list import size_text

    console = Console()
    wide = console.width >= LICENCE_FROM
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
                  caption='* licence of the code; the weights state none' if wide else
                          f'licences: in {LICENCE_FROM} columns, or by --json')
    table.add_column('name', no_wrap=True)
    table.add_column('size', justify='right', no_wrap=True)
    table.add_column('CLIP model', no_wrap=True)
    if wide:
        table.add_column('licence', no_wrap=True)
    table.add_column('file', no_wrap=True)
    for name in models:
        licence = [name.licence.replace(' (code)', '*')] if wide else []
        table.add_row(str(name), size_text(name.parameters), name.teacher, *licence,
                      'here' if name.is_ready else 'missing')
    console.print(table)


def cli() -> None:
    """Run as the installed program ``clipgs-list-models``."""
    run(main)


if __name__ == '__main__':
    cli()
