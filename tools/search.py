"""Rank the objects of an index by texts, images, splats or a mix of them; find its near-duplicates."""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    printable,
    progress_bar,
    repeated_preparation,
    run,
    teacher_for,
)

if TYPE_CHECKING:
    from torch import Tensor

    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.search import Match, SearchIndex

MANY = 100_000  # objects of which all pairs take minutes
UNWANTED = 0.5  # weight of a --not-... beside 1 of the others


class _Part(argparse.Action):
    """Option that adds a part of the query, in the order of the command line."""

    def __call__(self, parser, namespace, value, option=None) -> None:
        kind = option.lstrip('-').removeprefix('not-')
        part = kind, value if kind == 'text' else Path(value), option.startswith('--not-')
        namespace.parts = [*(namespace.parts or ()), part]


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of this program."""
    args = parser(__doc__, FILES, 'python tools/embed.py work_dirs/files -o work_dirs/embeddings.npz',
                  'python tools/search.py work_dirs/embeddings.npz --text "a red chair"')
    args.add_argument('index', type=Path, help='index written by tools/embed.py, a folder or an .npz')
    for kind, value, what in (('text', 'TEXT', 'text to search for'), ('image', 'FILE', 'image file to search with'),
                              ('gaussians', 'FILE', 'splat file to search with; it is prepared by the options the '
                                                    'index was made with, unless others are given')):
        args.add_argument(f'--{kind}', action=_Part, dest='parts', metavar=value, help=f'{what}; may be repeated')
        args.add_argument(f'--not-{kind}', action=_Part, dest='parts', metavar=value,
                          help=f'the same for what is not wanted, of weight {UNWANTED} beside 1 of the others')
    args.add_argument('--weights', type=_numbers, metavar='W,W,...',
                      help='weights of the parts of the query in their order on the command line')
    args.add_argument('--where', action='append', default=[], metavar='CONDITION',
                      help="condition on the metadata, such as 'category=chair', 'gaussians>=5000' or 'path~sofa'; all "
                           'of several hold')
    args.add_argument('--class-embeddings', type=Path, metavar='FILE',
                      help='.npz or .safetensors of named embeddings; --text is then a name in it, and no teacher is '
                           'needed')
    add_preparation(args)
    add_turns(args)
    add_download(args)
    args.add_argument('-k', type=int, default=10, help='number of objects to show (%(default)s)')
    args.add_argument('--exact', action='store_true', help='compare with every object, also in a large index')
    args.add_argument('--duplicates', type=float, metavar='COSINE',
                      help='show groups of objects that pairs of at least this cosine connect, such as 0.97')
    args.add_argument('--build-approximate', action='store_true',
                      help='write codes beside the index that make the search of a million objects and more fast')
    args.add_argument('--verify', action='store_true',
                      help='read the whole index and compare its files with the SHA-256 they were written with; an '
                           'index of up to 64 MB is compared whenever it is opened')
    args.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args.add_argument('--json', action='store_true', help='print a JSON list')
    return args


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(',')]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is not a list of numbers') from error


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options and check that they go together."""
    program = make_parser()
    args = program.parse_args(argv)
    kinds = [kind for kind, _, _ in args.parts or ()]
    tasks = bool(kinds) + (args.duplicates is not None) + args.build_approximate + args.verify
    if tasks != 1:
        program.error('one of the arguments --text, --image, --gaussians, --duplicates, --build-approximate, --verify '
                      'is required' if not tasks else
                      'a query, --duplicates, --build-approximate and --verify are one task each')
    if kinds and all(unwanted for _, _, unwanted in args.parts):
        program.error('a query needs a part that is wanted: --text, --image or --gaussians')
    if args.weights is not None and len(args.weights) != len(kinds):
        program.error(f'--weights has {len(args.weights)} numbers for {len(kinds)} parts of the query')
    if args.weights is not None and not all(0 < weight < 1e6 for weight in args.weights):
        program.error('--weights are positive numbers; what is not wanted is named by --not-text and its like')
    if args.class_embeddings is not None and set(kinds) != {'text'}:
        program.error('--class-embeddings has the embeddings of names, of which --text names one')
    if args.where and not kinds:
        program.error('--where is a condition on what a query finds')
    return args


def embed_part(clipgs: CLIPGSInferencer, kind: str, value: str | Path, args: argparse.Namespace) -> Tensor:
    """Embed a part of the query, (E,)."""
    if args.class_embeddings is not None:
        return clipgs.classes([value], class_embeddings=args.class_embeddings).embeddings[0]
    if kind == 'text':
        with teacher_for(clipgs, 'texts', FROM_FILE):
            return clipgs.embed_text(value)[0]
    if kind == 'image':
        with teacher_for(clipgs, 'images', '--gaussians needs none'):
            return clipgs.embed_images(value)[0]
    cloud, notes = prepared(value, args, clipgs)
    print(f'{value}: {len(cloud):,} Gaussians{describe(notes)}', file=sys.stderr)
    return clipgs.embed_gaussians(cloud, turns=args.turns)[0]


def embed_query(index: SearchIndex, args: argparse.Namespace) -> Tensor:
    """Embed the query, (E,).

    Raises:
        ValueError: The model has other weights than the one of the index.
    """
    from clipgs_plugin.search import mix_queries
    clipgs = load_inferencer(index.model, index.checkpoint or None, args.device, args.download)
    index.card.refuse_other_weights(clipgs, args.index)
    weights = args.weights or [UNWANTED if unwanted else 1. for _, _, unwanted in args.parts]
    signs = [-1 if unwanted else 1 for _, _, unwanted in args.parts]
    parts = [embed_part(clipgs, kind, value, args) for kind, value, _ in args.parts]
    return parts[0] if len(parts) == 1 else mix_queries(parts, [a * b for a, b in zip(signs, weights)])


def show(index: SearchIndex, matches: list[Match], args: argparse.Namespace) -> None:
    """Print what a query found."""
    if args.json:
        extra = [{'metadata': each.metadata} if index.folder else {} for each in matches]
        print(json.dumps([{'path': each.path, 'score': round(each.score, 6), **more}
                          for each, more in zip(matches, extra)], indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # so that brackets in names are not markup
    query = ', '.join(f'{"not " * unwanted}{printable(str(value))}' for _, value, unwanted in args.parts)
    table = Table('rank', 'cosine', title=Text(f'{query} ({len(index)} objects, {printable(index.model)})'))
    table.add_column('object', overflow='fold')
    for rank, match in enumerate(matches, 1):
        table.add_row(str(rank), f'{match.score:.3f}', Text(printable(match.path)))
    Console().print(table)


def show_duplicates(index: SearchIndex, args: argparse.Namespace) -> None:
    """Print the groups of near-duplicates."""
    if len(index) > MANY and (args.exact or index.approximate is None):
        print(f'note: all pairs of {len(index):,} objects are compared; codes make it faster and find the same groups, '
              'build them with --build-approximate', file=sys.stderr)
    with progress_bar() as bar:
        task = bar.add_task('comparing', total=None)
        groups = index.duplicates(args.duplicates, args.exact, lambda done, total: bar.update(
            task, completed=done, total=total))
    paths = [[index.paths[row] for row in group] for group in groups]
    if args.json:
        print(json.dumps(paths, indent=2))
        return
    for i, group in enumerate(paths, 1):
        print(f'group {i} of {len(group)}', *map(printable, group), sep='\n  ')
    print(f'{len(groups)} groups with {sum(map(len, groups))} of {len(index)} objects have pairs of cosine '
          f'{args.duplicates:g} or more', file=sys.stderr)


def build(index: Path) -> None:
    """Build the codes of an index."""
    from clipgs_plugin.search import build_approximate
    if not index.is_dir():
        raise ValueError(f'{index} is not a folder; an .npz is read into memory and searched exactly')
    with progress_bar() as bar:
        task = bar.add_task('coding', total=None)
        record = build_approximate(index, progress=lambda done, total: bar.update(task, completed=done, total=total))
    recall = record.recall
    print(f'Codes beside {index}: recall@10 {recall.objects:.3f} of objects, {recall.means:.3f} of means of two and '
          f'{recall.far:.3f} of queries as far as texts, with {record.probes} lists and {record.candidates} candidates')


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.build_approximate:
        build(args.index)
        return 0

    from clipgs_plugin.search import SearchIndex
    from clipgs_plugin.search.approximate import advice
    index = SearchIndex.load(args.index, args.verify)
    if args.verify:
        print(f'{args.index}: {len(index):,} objects, all files are as they were written')
        return 0
    if args.duplicates is not None:
        show_duplicates(index, args)
        return 0
    if index.options and any(kind == 'gaussians' for kind, _, _ in args.parts):
        args = make_parser().parse_args(argv, repeated_preparation(index.options))
        print(f'Preparing the query as the objects of the index: {" ".join(preparation_words(args))}', file=sys.stderr)
    check_up_cue(make_parser(), args)
    for kind, value, _ in args.parts:  # before any model is loaded
        if kind != 'text' and not value.exists():
            raise FileNotFoundError(f'{value} does not exist')
    from clipgs_plugin.search.filters import as_filters
    as_filters(args.where)
    if index.folder and not args.exact and (note := advice(index.folder, len(index))):
        print(note, file=sys.stderr)
    show(index, index.find(embed_query(index, args), args.k, args.where, args.exact), args)
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-search``."""
    run(main)


if __name__ == '__main__':
    cli()
