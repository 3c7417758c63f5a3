"""Embed splat files into CLIP's space and write an index for tools/search.py."""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from clipgs_plugin.tools._downloads import add_download
from clipgs_plugin.tools._program import (
    FILES,
    USER_ERRORS,
    add_preparation,
    add_turns,
    check_output,
    check_up_cue,
    describe,
    load_inferencer,
    one_line,
    parser,
    preparation_words,
    prepared,
    progress_bar,
    run,
)

SAVE_EVERY = 32  # files; an interrupted run leaves the index of those before


def find_files(inputs: list[Path]) -> list[Path]:
    """List the given files, and every splat file below the given folders."""
    from clipgs_plugin.io import SUFFIXES, find_splats
    files = []
    for entry in inputs:
        if entry.is_dir():
            found = find_splats(entry)
            if not found:
                raise FileNotFoundError(f'{entry} holds no splat files ({", ".join(SUFFIXES)})')
            files += found
        elif entry.is_file():
            files.append(entry)
        else:
            raise FileNotFoundError(f'{entry} does not exist')
    return files


def parse(argv: list[str] | None):
    """Parse the options and check the file to write."""
    from clipgs_plugin.apis import SearchIndex
    args = parser(__doc__, FILES, 'python tools/embed.py work_dirs/files -o work_dirs/embeddings.npz')
    args.add_argument('inputs', nargs='+', type=Path, help='splat files of any format, or folders of them')
    args.add_argument('-o', '--out', type=Path, default=Path('embeddings.npz'),
                      help='.npz file of the index to write; only an index is ever replaced (%(default)s)')
    args.add_argument('--model', default='clipgs_toy', help='name of tools/list_models.py, or a config (%(default)s)')
    args.add_argument('--checkpoint', default=None, help='weights of a config, or the file of a published model')
    add_download(args)
    add_preparation(args)
    add_turns(args)
    args.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args.add_argument('--json', action='store_true', help='print one JSON object a file')
    args.add_argument('--features', metavar='TEACHER',
                      help='index the triplet dataset that is the input, from the features of its views, which '
                           'tools/cache_features.py wrote; views:TEACHER embeds queries')
    args.add_argument('--split', help='split of the triplet dataset (all)')
    options = args.parse_args(argv)
    check_up_cue(args, options)
    if options.out.is_dir():
        raise IsADirectoryError(f'{options.out} is a folder; -o names the file to write, like '
                                f'{options.out}/embeddings.npz')
    check_output(args, options.out, ('.npz',), 'an index', SearchIndex.load)
    if options.features is not None and len(options.inputs) != 1:
        args.error('--features takes one triplet dataset as input')
    if options.features is None and options.split is not None:
        args.error('--split is of a triplet dataset and needs --features')
    return options


def index_features(root: Path, teacher: str, split: str | None, out: Path) -> int:
    """Write the index of a triplet dataset from its cached features."""
    from clipgs_plugin.apis import SearchIndex
    index = SearchIndex.from_features(root, teacher, split)
    out.parent.mkdir(parents=True, exist_ok=True)
    index.save(out)
    print(f'{len(index)} embeddings of {index.embeddings.shape[1]} numbers in {out}', file=sys.stderr)
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.features is not None:
        return index_features(args.inputs[0], args.features, args.split, args.out)

    import torch

    from clipgs_plugin.apis import SearchIndex
    from clipgs_plugin.apis.sharing import is_folder
    files = find_files(args.inputs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    clipgs = load_inferencer(args.model, args.checkpoint, args.device, args.download)
    print(f'Embedding {len(files)} files with {clipgs.name} into {args.out}', file=sys.stderr)

    # Absolute paths, so that the index serves in any folder.
    model = os.path.abspath(args.model) if args.model.endswith('.py') or is_folder(args.model) else args.model
    checkpoint = os.path.abspath(args.checkpoint) if args.checkpoint else ''
    embeddings, paths, ups, opinions, failed = [], [], [], [], 0

    def save() -> None:
        SearchIndex(torch.stack(embeddings), tuple(paths), model, checkpoint, tuple(ups),
                    preparation_words(args), tuple(opinions)).save(args.out)

    with progress_bar() as bar:
        for path in bar.track(files, description='embedding'):
            try:
                cloud, notes = prepared(path, args, clipgs)
                embedding = clipgs.embed_gaussians(cloud, turns=args.turns)[0]
            except USER_ERRORS as error:
                failed += 1
                bar.console.print(f'failed   {one_line(error)}', soft_wrap=True, highlight=False, markup=False)
                continue
            embeddings.append(embedding)
            paths.append(os.path.abspath(path))
            ups.append((notes['up'], notes.get('up_confidence', 1.0)))
            if 'up_opinions' in notes:
                opinions.append(tuple(notes['up_opinions'].values()))
            line = {'path': str(path), 'gaussians': len(cloud), 'sh_degree': cloud.sh_degree, **notes}
            print(json.dumps(line) if args.json else
                  f'{path}: {len(cloud):,} Gaussians of SH degree {cloud.sh_degree}{describe(notes)}')
            if len(paths) % SAVE_EVERY == 0:
                save()
    if embeddings:
        save()
        print(f'{len(paths)} embeddings of {embeddings[0].numel()} numbers in {args.out}', file=sys.stderr)
    if failed:
        print(f'{failed} of {len(files)} files could not be embedded', file=sys.stderr)
    return 1 if failed else 0


def cli() -> None:
    """Run as the installed program ``clipgs-embed``."""
    run(main)


if __name__ == '__main__':
    cli()
