"""List the published point-cloud models that an encoder can start from, or print some of them in full."""
from __future__ import annotations

import difflib
import json
import shutil
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING

from clipgs_plugin.tools._program import as_called, parser, run

if TYPE_CHECKING:
    from clipgs_plugin.models.checkpoints.contract import Contract


def main(argv: list[str] | None = None) -> int:
    from clipgs_plugin.registry.catalogue import load_catalogue
    catalogue = load_catalogue('checkpoints')
    families = list(dict.fromkeys(entry['family'] for entry in catalogue.values()))

    args = parser(__doc__, 'python tools/list_backbones.py --family uni3d',
                  'python tools/list_backbones.py uni3d-b recon++-l')
    args.add_argument('names', metavar='NAME', nargs='*', help='models to print in full instead of the table')
    args.add_argument('--family', choices=families, help='list only models of this family')
    args.add_argument('--json', action='store_true', help='print a JSON list with all details')
    options = args.parse_args(argv)
    for name in options.names:
        if name not in catalogue:
            close = difflib.get_close_matches(name.lower(), catalogue, n=3, cutoff=0.4) or catalogue
            args.error(f'no published model is named {name!r}; close names are {", ".join(close)}')
    entries = {name: catalogue[name] for name in options.names or catalogue
               if options.family in (None, catalogue[name]['family'])}

    if options.json:
        print(json.dumps([_details(name, entry) for name, entry in entries.items()], indent=2))
    elif options.names:
        for name, entry in entries.items():
            _print_entry(name, entry)
    else:
        _print_table(entries)
        others = _unpublished(catalogue)
        if others and options.family is None:
            print(f'Backbones without published weights: {", ".join(others)}')
        print(as_called('Details of a model: python tools/list_backbones.py NAME'))
    return 0


def _details(name: str, entry: dict) -> dict:
    """Return an entry as plain data, with every field of its contract."""
    return {'name': name, **entry, 'contract': _contract(entry).to_dict()}


def _print_table(entries: dict[str, dict]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # does not read brackets as markup

    from clipgs_plugin.structures.attributes import num_channels

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
                  title='Published models: width x blocks; points x channels, patches x points; CLIP model, width',
                  caption='* licence of the code; the weights state none')
    table.add_column('name', no_wrap=True)
    for column in ('size', 'input', 'CLIP model', 'licence'):
        table.add_column(column, overflow='fold')
    for family, members in groupby(entries.items(), key=lambda item: item[1]['family']):
        table.add_section()
        table.add_row(Text(family, style='bold'))
        for name, entry in members:
            contract = _contract(entry)
            width, depth = _size(entry['architecture']['backbone'])
            table.add_row(*map(Text, (
                f' {name}', f'{width} x {depth}',
                f'{round(contract.num_points / 1000)}k x {num_channels(contract.point_attributes)}, '
                f'{contract.num_groups} x {contract.group_size}',
                f'{contract.teacher} {contract.embed_dim}' if contract.teacher else '-',
                entry['licence'].replace(' (code)', '*') if entry['file'] else 'not released')))
    Console().print(table)


def _print_entry(name: str, entry: dict) -> None:
    contract = _contract(entry)
    from clipgs_plugin.models.checkpoints.hub import hub_file

    tokenizer, backbone = entry['architecture']['tokenizer'], entry['architecture']['backbone']
    width, depth = _size(backbone)
    columns = shutil.get_terminal_size().columns

    def show(title: str, *lines: str) -> None:
        for line in lines:  # file names and page addresses stay whole, for copying
            print(textwrap.fill(line, columns, initial_indent=f'  {title:<11}', subsequent_indent=' ' * 13,
                                break_long_words=False, break_on_hyphens=False))
            title = ''

    print(f'{name} ({entry["family"]})')
    show('backbone', f'{_format_call(backbone)}, {depth} blocks of width {width}, behind a '
                     f'{_format_call(tokenizer.get("patch_encoder", {"type": "PatchEncoder"}))} with tokens of '
                     f'{tokenizer["channels"]} channels')
    show('input', *contract.lines())
    lines = []
    for source, results in groupby(entry.get('published', []), key=lambda result: result['source']):
        lines += [f'{result["benchmark"]}: {result["top1"]} %'
                  + (f' (top 5: {result["top5"]} %)' if 'top5' in result else '') for result in results]
        lines.append(source)
    show('published', *lines)
    by_program = as_called(f'python tools/download.py {name} downloads it, or ') if hub_file(name) else ''
    show('file', *([entry['file'], f'{by_program}save it as {name}.pt in ./checkpoints or in $CLIPGS_CHECKPOINTS']
                   if entry['file'] else ['not released']))
    show('page', entry['page'])
    show('licence', entry['licence'])
    if 'note' in entry:
        show('note', entry['note'])
    if entry['file']:
        print(f'  config     {config_line(name, contract.embed_dim)}')
    print()


def config_line(name: str, embed_dim: int | None) -> str:
    """Return the line of a config for an encoder that starts from a published model.

    Args:
        name: Name of the model in the catalogue.
        embed_dim: Width of the model's embedding space, or None.
    """
    line = f"encoder=dict(type='GSEncoder', backbone={name!r}, embed_dim={embed_dim or 512})"
    return line if embed_dim else f'{line}  # the width of your teacher'


def _contract(entry: dict) -> Contract:
    from clipgs_plugin.models.checkpoints.contract import Contract
    return Contract.from_dict(entry['contract'])


def _size(backbone: dict) -> tuple[int, int]:
    """Return the width and the number of blocks of a backbone."""
    from clipgs_plugin.models.backbones import openshape, recon_plus_plus, uni3d

    if 'embed_dims' in backbone:
        return backbone['embed_dims'], backbone['depth']
    sizes = {'Uni3D': uni3d.SIZES, 'OpenShapePPAT': openshape.SIZES, 'ReConPlusPlus': recon_plus_plus.SIZES}
    width, depth, *_ = sizes[backbone['type']][backbone.get('size', backbone.get('scaling'))]
    return width, depth


def _unpublished(catalogue: dict[str, dict]) -> list[str]:
    """Return the registered backbones without a published model."""
    import clipgs_plugin.models  # noqa: F401  registers the backbones
    from clipgs_plugin.registry import MODELS

    published = {entry['architecture']['backbone']['type'] for entry in catalogue.values()}
    return sorted(name for name, kind in MODELS.module_dict.items()
                  if getattr(kind, 'input', None) in ('tokens', 'gaussians') and name not in published)


def _format_call(options: dict) -> str:
    options = dict(options)
    return f'{options.pop("type")}({", ".join(f"{key}={value!r}" for key, value in options.items())})'


def cli() -> None:
    """Run as the installed program ``clipgs-list-backbones``."""
    run(main)


if __name__ == '__main__':
    cli()
