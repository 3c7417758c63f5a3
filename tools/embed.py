"""Embed splat files into CLIP's space and write an index for tools/search.py."""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._downloads import add_download
from clipgs_plugin.tools._program import (
    FILES,
    LOG_EVERY,
    add_preparation,
    add_turns,
    check_output,
    check_up_cue,
    describe,
    load_inferencer,
    one_line,
    pace,
    parser,
    preparation_words,
    prepared,
    printable,
    progress_bar,
    run,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from clipgs_plugin import CLIPGSInferencer, GaussianCloud
    from clipgs_plugin.apis import Embedded
    from clipgs_plugin.tools._index_output import FileOutput, FolderOutput

MANY = 200  # files, of which each has no line of its own
SHOWN = 20  # failures of many files
MANY_FILES = '''an index that grows, in a folder; the same command continues it and takes what is new or has changed:
  clipgs-embed work_dirs/files -o work_dirs/index
on a running Ray cluster, with the files on storage that its nodes share:
  clipgs-embed FOLDER -o work_dirs/index --engine ray'''


def find_files(inputs: list[Path]) -> list[Path]:
    """List the given files, and every splat file below the given folders."""
    return list(map(Path, _walk(inputs)))


def _walk(inputs: list[Path]) -> list[str]:
    from clipgs_plugin.io import SUFFIXES, walk_splats
    files = []
    for entry in inputs:
        if entry.is_dir():
            found = list(walk_splats(entry))
            if not found:
                raise FileNotFoundError(f'{entry} holds no splat files ({", ".join(SUFFIXES)})')
            files += found
        elif entry.is_file():
            files.append(str(entry))
        else:
            raise FileNotFoundError(f'{entry} does not exist')
    return files


def _options() -> argparse.ArgumentParser:
    from clipgs_plugin.apis.inferencer import PRECISIONS
    from clipgs_plugin.apis.stream import ENGINES, TIME_LIMIT
    args = parser(f'{__doc__}\n\n{MANY_FILES}', FILES,
                  'python tools/embed.py work_dirs/files -o work_dirs/embeddings.npz')
    args.add_argument('inputs', nargs='+', type=Path, help='splat files of any format, or folders of them')
    args.add_argument('-o', '--out', type=Path, default=Path('embeddings.npz'),
                      help='.npz file to write, or folder of an index to keep up to date; only an index is ever '
                           'replaced (%(default)s)')
    args.add_argument('--model', default='clipgs_toy', help='name of tools/list_models.py, or a config (%(default)s)')
    args.add_argument('--checkpoint', default=None, help='weights of a config, or the file of a published model')
    add_download(args)
    add_preparation(args)
    add_turns(args)
    args.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args.add_argument('--precision', choices=PRECISIONS, default='fp32',
                      help='precision of the encoder; bf16 is faster (%(default)s)')
    args.add_argument('--batch-size', type=int, default=16, metavar='N', help='objects encoded together (%(default)s)')
    args.add_argument('--workers', type=int, metavar='N',
                      help='processes that read and prepare (the cores; 0, in this process, for a few files)')
    args.add_argument('--engine', choices=ENGINES, default='here',
                      help='here: --workers processes prepare and this one encodes; ray: the nodes of a Ray cluster do '
                           'both (%(default)s)')
    args.add_argument('--ray-address', metavar='ADDRESS',
                      help='address of the Ray cluster (RAY_ADDRESS, else the cluster that runs on this machine)')
    args.add_argument('--time-limit', type=float, default=TIME_LIMIT, metavar='SECONDS',
                      help='seconds of a file, after which it fails (%(default)g); 0 for no limit; needs workers')
    args.add_argument('--retry-failed', action='store_true', help='try files again that failed and have not changed')
    args.add_argument('--category-from-folder', action='store_true',
                      help='store the name of the folder of a file as its category')
    args.add_argument('--json', action='store_true', help='print one JSON object a file')
    args.add_argument('--features', metavar='TEACHER',
                      help='index the triplet dataset that is the input, from the features of its views, which '
                           'tools/cache_features.py wrote; views:TEACHER embeds queries')
    args.add_argument('--split', help='split of the triplet dataset (all)')
    return args


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options and check the place to write."""
    from clipgs_plugin.io import SUFFIXES
    from clipgs_plugin.search import SearchIndex
    from clipgs_plugin.tools._index_output import PART, part_of
    args = _options()
    options = args.parse_args(argv)
    check_up_cue(args, options)
    suffixes = '.npz', *SUFFIXES
    if not options.out.is_dir() and (options.out.exists() or options.out.name.lower().endswith(suffixes)):
        for path, suffix in ((options.out, '.npz'), (part_of(options.out), PART)):
            check_output(args, path, (suffix,), 'an index in a file', SearchIndex.load)
    if options.batch_size < 1 or (options.workers or 0) < 0 or not options.time_limit >= 0:
        args.error('--batch-size is at least 1, --workers and --time-limit are at least 0')
    if options.engine == 'ray' and options.up_cue == 'model':
        args.error('--up-cue model works with --engine here alone')
    if options.features is not None and len(options.inputs) != 1:
        args.error('--features takes one triplet dataset as input')
    if options.features is None and options.split is not None:
        args.error('--split is of a triplet dataset and needs --features')
    return options


def is_file(out: Path) -> bool:
    """Return True for the name of an index in one file."""
    return out.name.lower().endswith('.npz') and not out.is_dir()


def report_index(out: Path, count: int, width: int) -> None:
    """Print the content of an index, and the way to a fast search if it is large."""
    from clipgs_plugin.search.approximate import advice
    print(f'{count:,} embeddings of {width} numbers in {out}', file=sys.stderr)
    if not is_file(out) and (note := advice(out, count)):
        print(note, file=sys.stderr)


def index_features(args: argparse.Namespace) -> int:
    """Write the index of a triplet dataset from its cached features."""
    from clipgs_plugin.search import SearchIndex
    from clipgs_plugin.tools._index_output import write_features
    index = SearchIndex.from_features(args.inputs[0], args.features, args.split)
    if is_file(args.out):
        args.out.parent.mkdir(parents=True, exist_ok=True)
        index.save(args.out)
    else:
        write_features(index, args.inputs[0], args.features, args.out)
    report_index(args.out, len(index), index.embeddings.shape[1])
    return 0


def read(path: str, options: argparse.Namespace, clipgs: CLIPGSInferencer | None) -> tuple[GaussianCloud, dict]:
    """Read a file as the options say; errors of the system have their remedies."""
    try:
        return prepared(Path(path), options, clipgs)
    except OSError as error:
        raise type(error)(one_line(error)) from error


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.features is not None:
        return index_features(args)
    names = {os.path.abspath(file): file for file in _walk(args.inputs)}
    clipgs = load_inferencer(args.model, args.checkpoint, args.device, args.download)
    clipgs.require_embeddings()
    with output(args, clipgs) as out:
        todo = out.outdated(args.inputs, names)
        print(f'Embedding {len(todo):,} files with {clipgs.name} into {args.out}{_left_out(out)}', file=sys.stderr)
        failed = embed(todo, names, args, clipgs.with_precision(args.precision), out)
        embedded = len(out)
    if embedded:
        report_index(args.out, embedded, clipgs.embed_dim)
    if failed or out.failed_before:
        print(f'{failed + out.failed_before:,} of {len(names):,} files could not be embedded'
              + (f', for the reasons in {out.failures}; --retry-failed tries them again' if out.failures else ''),
              file=sys.stderr)
    return 1 if failed or out.failed_before else 0


def output(args: argparse.Namespace, clipgs: CLIPGSInferencer) -> FolderOutput | FileOutput:
    """Return the context that keeps the embeddings."""
    from clipgs_plugin.search import IndexCard
    from clipgs_plugin.tools._index_output import FileOutput, FolderOutput
    model, checkpoint = clipgs.origin
    card = partial(IndexCard, model, clipgs.embed_dim, checkpoint or '', options=preparation_words(args),
                   teacher=clipgs.teacher_name)
    if is_file(args.out):
        return FileOutput(args.out, card())
    return FolderOutput(args.out, card(checkpoint_sha256=clipgs.weights_sha256()), args.retry_failed,
                        args.category_from_folder)


def _left_out(out: FolderOutput | FileOutput) -> str:
    words = ((out.unchanged, 'unchanged'), (out.filled, 'of them given a category'),
             (out.failed_before, 'failed before'), (len(out.gone), 'gone and dropped'))
    return ''.join(f', {count:,} {what}' for count, what in words if count)


def embed(todo: list[str], names: dict[str, str], args: argparse.Namespace, clipgs: CLIPGSInferencer,
          out: FolderOutput | FileOutput) -> int:
    """Embed files into an output; return the number that failed."""
    from clipgs_plugin.apis import Failed, stream_embeddings
    model = clipgs if args.up_cue == 'model' else None  # prepares objects as well, where it is
    workers = 0 if model else args.workers if args.workers is not None else usual_workers(todo, out)
    outcomes = stream_embeddings(
        clipgs, todo, partial(read, options=args, clipgs=model), batch_size=args.batch_size, turns=args.turns,
        workers=workers, engine=args.engine, time_limit=args.time_limit or None, ray_address=args.ray_address)
    failed = 0
    with progress_bar() as bar, closing(outcomes):
        report = reporter(bar, len(todo))
        for done, found in enumerate(outcomes, 1):
            if not isinstance(found, Failed):
                try:
                    out.add(found)
                except ValueError as error:
                    found = Failed(found.path, type(error).__name__, str(error))
            if isinstance(found, Failed):
                failed += 1
                out.fail(found)
                if failed <= SHOWN or len(todo) <= MANY:
                    bar.console.print(f'failed   {printable(found.message)}', soft_wrap=True, highlight=False,
                                      markup=False)
            elif args.json or len(todo) <= MANY:
                show(found, names[found.path], args.json)
            report(done, failed)
    return failed


def usual_workers(todo: list[str], out: FolderOutput | FileOutput) -> int:
    """Return the number of worker processes, at least one after a run that a file may have crashed."""
    from clipgs_plugin.apis.stream import default_workers
    workers = default_workers(len(todo))
    if workers or not todo or not out.was_killed:
        return workers
    print('note: the run before was killed, or crashed on a file; this one reads in another process, so that such a '
          'file is listed and the others go on', file=sys.stderr)
    return 1


def show(found: Embedded, name: str, as_json: bool) -> None:
    """Print a line on an object."""
    notes = dict(found.notes)
    print(json.dumps({'path': name, **notes}) if as_json else
          f'{printable(name)}: {notes["gaussians"]:,} Gaussians of SH degree {notes["sh_degree"]}{describe(notes)}')


def reporter(bar: Progress, total: int) -> Callable[[int, int], None]:
    """Return a function that updates the bar, and prints a line every minute where no terminal shows it."""
    task, started = bar.add_task('embedding', total=total), time.monotonic()
    printed = started

    def report(done: int, failed: int) -> None:
        nonlocal printed
        bar.update(task, completed=done)
        now = time.monotonic()
        if bar.disable and now - printed > LOG_EVERY:
            printed = now
            print(pace(done, total - done, failed, now - started), file=sys.stderr)
    return report


def cli() -> None:
    """Run as the installed program ``clipgs-embed``."""
    run(main)


if __name__ == '__main__':
    cli()
