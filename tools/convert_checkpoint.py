"""Convert a published point-cloud checkpoint to safetensors with its architecture and contract as metadata."""
from __future__ import annotations

import json
import sys
from pathlib import Path

from clipgs_plugin.tools._program import check_output, parser, run


def main(argv: list[str] | None = None) -> int:
    from clipgs_plugin.models.checkpoints import FAMILIES, convert_checkpoint
    args = parser(__doc__, 'python tools/run_table.py backbones --seeds 1 --rows "Uni3D, from its file"',
                  'python tools/convert_checkpoint.py work_dirs/tables/backbones/checkpoints/uni3d-*.pth '
                  'work_dirs/uni3d.safetensors')
    args.add_argument('source', metavar='SRC', type=Path, help='path of the published file')
    args.add_argument('target', metavar='DST', type=Path, help='path of the .safetensors file to write')
    args.add_argument('--family', choices=['auto', *sorted(FAMILIES)], default='auto',
                      help='required family of the file (default: %(default)s, detected from the tensor names)')
    args.add_argument('--name', help='catalogue entry that the file must match, as listed by tools/list_backbones.py')
    args.add_argument('--finetuned', action='store_true', help='accept a file that was fine-tuned for classification')
    args.add_argument('--trust-pickle', action='store_true',
                      help='execute the code in the file; only for trusted files, in an isolated environment')
    args.add_argument('--overwrite', action='store_true', help='replace an existing converted file')
    args.add_argument('--json', action='store_true', help='print the result as JSON')
    options = args.parse_args(argv)
    if options.target.exists() and not options.overwrite:
        args.error(f'{options.target} exists; add --overwrite to replace it')
    if options.target.exists() and options.source.exists() and options.target.samefile(options.source):
        args.error(f'{options.target} is the input, which is never replaced; name another file')
    check_output(args, options.target, ('.safetensors',), 'a converted checkpoint', _require_converted)
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
        print(f'{len(found.sources)} tensors written to {options.target}, {len(found.unused)} unused tensors left out')
    return 0


def _require_converted(path: Path) -> None:
    """Raise a ValueError unless this program wrote a file."""
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f'{path}: {error}') from error
    if 'source_sha256' not in metadata:
        raise ValueError(f'{path} has no hash of its source')


def cli() -> None:
    """Run as the installed program ``clipgs-convert-checkpoint``."""
    run(main)


if __name__ == '__main__':
    cli()
