"""Rank the objects of an index by a text, a picture or another splat."""
from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from clipgs_plugin.tools._program import FILES, parser, run


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, FILES, 'python tools/embed.py work_dirs/files -o work_dirs/embeddings.npz',
                  'python tools/search.py work_dirs/embeddings.npz --text "a red chair"')
    args.add_argument('index', type=Path, help='what tools/embed.py wrote')
    query = args.add_mutually_exclusive_group(required=True)
    query.add_argument('--text', help='a phrase')
    query.add_argument('--image', type=Path, help='a picture file')
    query.add_argument('--gaussians', type=Path, help='a splat file')
    args.add_argument('--up', default='y', choices=['x', 'y', 'z', '-x', '-y', '-z'],
                      help='the up axis of the splat file asked with, which it does not tell (%(default)s)')
    args.add_argument('-k', type=int, default=10, help='how many to show (%(default)s)')
    args.add_argument('--device', default='cpu', help='where to compute (%(default)s)')
    args.add_argument('--json', action='store_true', help='print a JSON list')
    args = args.parse_args(argv)

    from clipgs_plugin import CLIPGSInferencer, read_gaussians
    from clipgs_plugin.apis import SearchIndex
    from clipgs_plugin.ops import axis_change
    index = SearchIndex.load(args.index)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter('always')
        clipgs = CLIPGSInferencer(index.model, index.checkpoint or None, args.device)
    for note in notes:
        print(f'note: {note.message}', file=sys.stderr)
    if args.text is not None:
        embedding = clipgs.embed_text(args.text)
    elif args.image is not None:
        embedding = clipgs.embed_images(args.image)
    else:
        cloud = read_gaussians(args.gaussians)
        embedding = clipgs.embed_gaussians(cloud if args.up == 'y' else cloud.transform(axis_change(args.up, 'y')))

    matches = index.query(embedding[0], args.k)
    if args.json:
        print(json.dumps([{'path': path, 'score': round(score, 6)} for path, score in matches], indent=2))
    else:
        from rich.console import Console
        from rich.table import Table
        asked = args.text or args.image or args.gaussians
        table = Table('rank', 'cosine', 'object', title=f'{asked} ({len(index)} objects, {index.model})')
        for rank, (path, score) in enumerate(matches, 1):
            table.add_row(str(rank), f'{score:.3f}', path)
        Console().print(table)
    return 0


if __name__ == '__main__':
    run(main)
