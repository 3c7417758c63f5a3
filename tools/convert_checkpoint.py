"""Convert a published point-cloud checkpoint to safetensors that say what they are."""
from __future__ import annotations

import json
import sys
from pathlib import Path

from clipgs_plugin.tools._program import TINY_TABLE, parser, run


def main(argv: list[str] | None = None) -> int:
    from clipgs_plugin.models.checkpoints import FAMILIES, convert_checkpoint
    args = parser(__doc__, TINY_TABLE, 'python tools/convert_checkpoint.py '
                  'work_dirs/tables/backbones/checkpoints/120x1/uni3d.pth work_dirs/uni3d.safetensors')
    args.add_argument('source', metavar='SRC', type=Path, help='the published file')
    args.add_argument('target', metavar='DST', type=Path, help='the .safetensors file to write')
    args.add_argument('--family', choices=['auto', *sorted(FAMILIES)], default='auto',
                      help='refuse the file where it is of another (%(default)s: told by the names in it)')
    args.add_argument('--name', help='the published checkpoint that it should be, as tools/list_backbones.py names it')
    args.add_argument('--finetuned', action='store_true', help='accept a file that was fine-tuned to classify')
    args.add_argument('--trust-pickle', action='store_true',
                      help='run the code inside the file; only for files you trust, in a place where it can do no harm')
    args.add_argument('--overwrite', action='store_true', help='replace a file that exists')
    args.add_argument('--json', action='store_true', help='print the result as JSON')
    options = args.parse_args(argv)
    if options.target.exists() and not options.overwrite:
        args.error(f'{options.target} exists; say --overwrite to replace it')
    print(f'Converting {options.source} to {options.target}', file=sys.stderr)
    found = convert_checkpoint(options.source, options.target, options.family, options.name, options.trust_pickle,
                               options.finetuned)
    if options.json:
        print(json.dumps({'family': found.family.name, **found.architecture._asdict(),
                          'contract': found.contract.to_dict(), 'used': len(found.sources), 'unused': found.unused}))
    else:
        backbone = dict(found.architecture.backbone)
        print(f'{backbone.pop("type")}({", ".join(f"{key}={value!r}" for key, value in backbone.items())})')
        print(*found.contract.lines(), sep='\n')
        print(f'{len(found.sources)} tensors written to {options.target}, {len(found.unused)} left out as never used')
    return 0


if __name__ == '__main__':
    run(main)
