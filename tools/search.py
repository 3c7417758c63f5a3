"""Rank the objects of an index by a text, an image or another splat."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from clipgs_plugin.tools._downloads import add_download
from clipgs_plugin.tools._program import (
    FILES,
    FROM_FILE,
    add_preparation,
    add_turns,
    check_up_cue,
    describe,
    load_inferencer,
    parser,
    preparation_words,
    prepared,
    repeated_preparation,
    run,
    teacher_for,
)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of this program."""
    args = parser(__doc__, FILES, 'python tools/embed.py work_dirs/files -o work_dirs/embeddings.npz',
                  'python tools/search.py work_dirs/embeddings.npz --text "a red chair"')
    args.add_argument('index', type=Path, help='index written by tools/embed.py')
    query = args.add_mutually_exclusive_group(required=True)
    query.add_argument('--text', help='text to search for')
    args.add_argument('--class-embeddings', type=Path, metavar='FILE',
                      help='.npz or .safetensors of named embeddings; --text is then a name in it, and no teacher is '
                           'needed')
    query.add_argument('--image', type=Path, help='image file to search with')
    query.add_argument('--gaussians', type=Path,
                       help='splat file to search with; it is prepared by the options the index was made with, unless '
                            'others are given')
    add_preparation(args)
    add_turns(args)
    add_download(args)
    args.add_argument('-k', type=int, default=10, help='number of objects to show (%(default)s)')
    args.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args.add_argument('--json', action='store_true', help='print a JSON list')
    return args


def main(argv: list[str] | None = None) -> int:
    program = make_parser()
    args = program.parse_args(argv)
    if args.class_embeddings is not None and args.text is None:
        program.error('--class-embeddings has the embeddings of names, of which --text names one')

    from clipgs_plugin.apis import SearchIndex
    index = SearchIndex.load(args.index)
    if args.gaussians is not None and index.options:
        args = program.parse_args(argv, repeated_preparation(index.options))
        print(f'Preparing the query as the objects of the index: {" ".join(preparation_words(args))}', file=sys.stderr)
    check_up_cue(program, args)
    for file in filter(None, (args.image, args.gaussians)):  # before any model is loaded
        if not file.exists():
            raise FileNotFoundError(f'{file} does not exist')
    clipgs = load_inferencer(index.model, index.checkpoint or None, args.device, args.download)
    if args.class_embeddings is not None:
        embedding = clipgs.classes([args.text], class_embeddings=args.class_embeddings).embeddings
    elif args.text is not None:
        with teacher_for(clipgs, 'texts', FROM_FILE):
            embedding = clipgs.embed_text(args.text)
    elif args.image is not None:
        with teacher_for(clipgs, 'images', '--gaussians needs none'):
            embedding = clipgs.embed_images(args.image)
    else:
        cloud, notes = prepared(args.gaussians, args, clipgs)
        print(f'{args.gaussians}: {len(cloud):,} Gaussians{describe(notes)}', file=sys.stderr)
        embedding = clipgs.embed_gaussians(cloud, turns=args.turns)

    matches = index.query(embedding[0], args.k)
    if args.json:
        print(json.dumps([{'path': path, 'score': round(score, 6)} for path, score in matches], indent=2))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text  # so that brackets in names are not markup
        query = args.text or args.image or args.gaussians
        table = Table('rank', 'cosine', title=Text(f'{query} ({len(index)} objects, {index.model})'))
        table.add_column('object', overflow='fold')
        for rank, (path, score) in enumerate(matches, 1):
            table.add_row(str(rank), f'{score:.3f}', Text(path))
        Console().print(table)
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-search``."""
    run(main)


if __name__ == '__main__':
    cli()
