"""Shared parts of the programs: help with an example, exit codes, errors in one line, names as they were called."""
from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from clipgs_plugin.tools._settings import settings_action

if TYPE_CHECKING:
    from clipgs_plugin import CLIPGSInferencer, GaussianCloud

LOG_EVERY = 60.0  # seconds between the lines of pace()
AXES = ['x', 'y', 'z', '-x', '-y', '-z']
USER_ERRORS = (ValueError, OSError, ImportError)
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), 'free some space and files, or write elsewhere'),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), 'check its permissions, or name another place'),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), 'a file lies where a folder is wanted, name another'),
    errno.ENAMETOOLONG: 'name it shorter'}

# Names under which the programs are installed.
INSTALLED = {
    'train': 'clipgs-train', 'test': 'clipgs-test', 'embed': 'clipgs-embed', 'search': 'clipgs-search',
    'serve': 'clipgs-serve', 'gallery': 'clipgs-gallery',
    'classify': 'clipgs-classify', 'doctor': 'clipgs-doctor', 'download': 'clipgs-download',
    'convert_gaussians': 'clipgs-convert', 'convert_checkpoint': 'clipgs-convert-checkpoint',
    'make_triplets': 'clipgs-triplets', 'inspect_triplets': 'clipgs-inspect', 'cache_features': 'clipgs-features',
    'make_toy_world': 'clipgs-toy-world', 'make_scenes': 'clipgs-scenes', 'list_backbones': 'clipgs-list-backbones',
    'list_models': 'clipgs-list-models', 'list_datasets': 'clipgs-list-datasets',
    'report': 'clipgs-report', 'run_table': 'clipgs-table', 'few_shot': 'clipgs-few-shot',
    'share': 'clipgs-share', 'export': 'clipgs-export', 'benchmark': 'clipgs-benchmark',
    'label_scene': 'clipgs-label-scene'}


def as_called(text: str) -> str:
    """Replace ``tools/NAME.py`` by the installed name of the program, if the running one was called by its own."""
    if Path(sys.argv[0]).stem not in INSTALLED.values():
        return text
    return re.sub(r'(?:python )?tools/(\w+)\.py', lambda match: INSTALLED.get(match[1], match[0]), text)


class _Parser(argparse.ArgumentParser):
    """Argument parser that accepts ``--up -y`` and ``--crop -1,...``, and names programs as they were called."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.register('type', Path, named_path)

    def _print_message(self, message, file=None):
        super()._print_message(as_called(message), file)

    def parse_known_args(self, args=None, namespace=None):
        joined = []
        for word in sys.argv[1:] if args is None else args:
            last = joined[-1] if joined else ''
            if last == '--crop' or (last in ('--up', '--to-up') and word in ('-x', '-y', '-z')):
                joined[-1] += f'={word}'
            else:
                joined.append(word)
        return super().parse_known_args(joined, namespace)


WORLD = 'python tools/make_toy_world.py work_dirs/toy_world'
FEATURES = 'python tools/cache_features.py work_dirs/toy_world --teacher toy-clip'
FILES = ('python tools/make_toy_world.py work_dirs/toys --num-train 1 --num-val 1 --num-test 1 '
         '--export work_dirs/files')
TINY_TABLE = ('python tools/run_table.py attributes --seeds 1 --rows "GS tokenizer" --cfg-options '
              'train_cfg.max_epochs=1 --table-options worlds.main.num_train=120 worlds.main.num_test=60')
TRAINED = 'python tools/train.py clipgs_pointbert-nano_15e_toy-world --work-dir work_dirs/run'


def parser(description: str, *example: str) -> argparse.ArgumentParser:
    """Make an argument parser whose help starts with a sentence and ends with an example.

    Args:
        description: First sentence of the help.
        example: Commands that work one after another in a fresh checkout; the last one is the program's own.
    """
    return _Parser(description=description, epilog='\n  '.join(['example:', *example]),
                   formatter_class=argparse.RawDescriptionHelpFormatter)


def named_path(text: str) -> Path:
    """Return a path; an empty name, mostly a variable that is not set, would else be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name; name '.' for this folder")
    return Path(text)


def add_experiment(args: argparse.ArgumentParser, setting: str) -> None:
    """Add the arguments of programs that run a config.

    Args:
        args: Parser to add to.
        setting: Example of ``--cfg-options``.
    """
    args.add_argument('config', help='path of a config, or name of a shipped one')
    args.add_argument('--work-dir', help='folder of all output (./work_dirs/NAME of the config)')
    args.add_argument('--cfg-options', nargs='+', action=settings_action(), metavar='KEY=VALUE',
                      help=f'settings that override the config, for example {setting}')
    args.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                      help='launcher of several processes, pytorch for torchrun (%(default)s)')
    args.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers and ignored')


def check_output(args: argparse.ArgumentParser, path: Path, suffixes: tuple[str, ...], kind: str,
                 read: Callable[[Path], object]) -> None:
    """End the program unless a file may be written: its name has the suffix, and it replaces nothing but its own kind.

    Args:
        args: Parser that reports wrong use.
        path: File to write.
        suffixes: Endings of which the name has one.
        kind: Description of the file, such as ``'an index'``.
        read: Function that fails for a file of another kind, by an error of ``USER_ERRORS`` or as an archive.
    """
    if not path.name.lower().endswith(suffixes):
        args.error(f'{path}: the name of {kind} ends in {" or ".join(suffixes)}')
    if path.exists():
        try:
            read(path)
        except (*USER_ERRORS, zipfile.BadZipFile):
            args.error(f'{path} exists and is not {kind}; name another file')


def usable_device(name: str) -> str:
    """Check that tensors can be made on a device; return its name.

    Raises:
        ValueError: The name is unknown, or the device is absent.
    """
    import torch
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0].partition('. ')[0]
        raise ValueError(f'--device {name} cannot be used ({reason}); choose another, such as cpu') from error
    return name


def load_inferencer(model: str, checkpoint: str | None, device: str, download: bool = False) -> CLIPGSInferencer:
    """Load a model with its teacher; print its notes to standard error.

    The weights of a published model that are not found are downloaded if ``download`` is set, or the user agrees.

    Raises:
        ValueError: A config is given without a checkpoint; results of random weights would look like results.
    """
    from clipgs_plugin import CLIPGSInferencer, get_config
    from clipgs_plugin.apis.model_list import has_weights
    from clipgs_plugin.apis.multi_view import is_multi_view, require_trained
    from clipgs_plugin.tools._downloads import provide_weights

    if checkpoint is None:
        provide_weights(model, download)
    if checkpoint is None and not has_weights(model):
        get_config(model)  # a wrong name is reported first
        raise ValueError(f'{model} is a config and has no weights; name them with --checkpoint')
    if is_multi_view(model):
        require_trained(model)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter('always')
        clipgs = CLIPGSInferencer(model, checkpoint, usable_device(device))
    for note in notes:
        print(f'note: {note.message}', file=sys.stderr)
    return clipgs


FROM_FILE = 'give --class-embeddings FILE instead, written on a machine that has it (docs/models.md)'


@contextmanager
def teacher_for(clipgs: CLIPGSInferencer, purpose: str, remedy: str) -> Iterator[None]:
    """Say within the context what a CLIP model that cannot be fetched is needed for, and what does without it.

    Raises:
        FileNotFoundError: The weights of the teacher are not here and cannot be downloaded.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{clipgs.name} needs its CLIP model {clipgs.teacher_name} for {purpose}, and {error}; '
                                f'or {remedy}') from error


def add_preparation(args: argparse.ArgumentParser, up: str | None = 'y') -> None:
    """Add the options that say which way is up and what is the object; :func:`prepared` follows them.

    Args:
        args: Parser to add to.
        up: Up axis of the files unless the user names another, or None to leave them as they are.
    """
    args.add_argument('--up', default=up, choices=[*AXES, 'auto'],
                      help='up axis of the files, which no format stores; auto estimates it from the geometry, and is '
                           'right for about half of the objects (%(default)s)')
    args.add_argument('--crop', type=box, metavar='X0,Y0,Z0,X1,Y1,Z1',
                      help='box to crop to, in the frame of the file')
    args.add_argument('--remove-plane', action='store_true', help='remove the table or floor below the object')
    args.add_argument('--largest-cluster', action='store_true', help='drop what is not connected to the object')


def add_turns(args: argparse.ArgumentParser) -> None:
    """Add the options of programs that embed: ``--turns`` and ``--up-cue``."""
    args.add_argument('--turns', type=int, default=1,
                      help='turns about the up axis whose embeddings are averaged (%(default)s)')
    args.add_argument('--up-cue', choices=['geometry', 'model'], default='geometry',
                      help='what --up auto judges by; model adds the constancy of the embeddings under turns, at the '
                           'cost of 24 embeddings an object, and shows both opinions (%(default)s)')


def preparation_words(options: argparse.Namespace) -> tuple[str, ...]:
    """Write the options of :func:`add_preparation` and :func:`add_turns` as words that parse to the same."""
    words = [f'--up={options.up}', f'--turns={options.turns}']
    if options.crop:
        words.append(f'--crop={",".join(map(repr, options.crop))}')
    if options.up_cue != 'geometry':
        words.append(f'--up-cue={options.up_cue}')
    return (*words, *(flag for flag, on in (('--remove-plane', options.remove_plane),
                                            ('--largest-cluster', options.largest_cluster)) if on))


def repeated_preparation(words: tuple[str, ...]) -> argparse.Namespace:
    """Parse words of :func:`preparation_words` that a file stored.

    Raises:
        ValueError: They are none.
    """
    stored = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    add_preparation(stored)
    add_turns(stored)
    try:
        found, others = stored.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(f'{" ".join(words)!r} are no options of tools/embed.py ({error})') from error
    if others:
        raise ValueError(f'{" ".join(others)!r} are no options of tools/embed.py that prepare objects')
    return found


def box(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split(','))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is not a list of numbers') from error
    if len(numbers) != 6 or not all(low < high for low, high in zip(numbers[:3], numbers[3:])):
        raise argparse.ArgumentTypeError(f'{text!r}: expected X0,Y0,Z0,X1,Y1,Z1 with X0 < X1, Y0 < Y1, Z0 < Z1')
    return numbers


def prepared(path: Path, options: argparse.Namespace,
             clipgs: CLIPGSInferencer | None = None) -> tuple[GaussianCloud, dict]:
    """Read the Gaussians of a file, turn its up axis to y and remove surroundings; return notes as well."""
    from clipgs_plugin import read_gaussians
    return prepare_cloud(read_gaussians(path), options, model=clipgs if options.up_cue == 'model' else None)


def check_up_cue(args: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program if ``--up-cue model`` is given for a named axis."""
    if options.up_cue == 'model' and options.up != 'auto':
        args.error(f'--up-cue model is a cue of --up auto and has no effect on --up {options.up}; leave it out')


def prepare_cloud(cloud: GaussianCloud, options: argparse.Namespace, target: str = 'y',
                  model: CLIPGSInferencer | None = None) -> tuple[GaussianCloud, dict]:
    """Follow the options of :func:`add_preparation`.

    Args:
        cloud: Object in the frame of its file.
        options: Parsed options.
        target: Axis to turn the up axis to.
        model: Inferencer that is a further cue of an estimated axis.

    Returns:
        The object, and notes: ``up``, ``up_confidence`` of an estimated axis, with a model ``up_opinions`` (axis and
        confidence by the geometry alone and by the model alone), and the numbers of Gaussians that each removal
        dropped: ``cropped``, ``plane``, ``other_clusters``.
    """
    from clipgs_plugin.datasets.transforms import CropGaussians, LargestCluster, RemovePlane
    from clipgs_plugin.ops import axis_change

    notes: dict = {}

    def apply(transform, count: str) -> None:
        nonlocal cloud
        results = transform({'gaussians': cloud})
        cloud, notes[count] = results['gaussians'], results[count]

    if options.crop:
        apply(CropGaussians(options.crop[:3], options.crop[3:]), 'cropped')
    if options.up:
        notes['up'] = options.up
        if options.up == 'auto':
            from clipgs_plugin.apis.upright import up_estimates  # loads the models, which workers do without
            found = up_estimates(cloud, model)
            opinions = {by: (each.axis, round(each.confidence, 3)) for by, each in found.items()}
            notes['up'], notes['up_confidence'] = opinions.pop('all')
            if model is not None:
                notes['up_opinions'] = opinions
        if notes['up'] != target:
            cloud = cloud.transform(axis_change(notes['up'], target))
    if options.remove_plane:
        apply(RemovePlane(up=target if options.up else 'y'), 'plane')
    if options.largest_cluster:
        apply(LargestCluster(), 'other_clusters')
    return cloud, notes


def describe(notes: dict) -> str:
    """Describe the notes of :func:`prepare_cloud` that tell more than the options, each after a comma."""
    removals = dict(cropped='outside the crop', plane='of the plane removed', other_clusters='of other clusters')
    words = [f'{notes[key]:,} {what}' for key, what in removals.items() if key in notes]
    if 'up_confidence' in notes:
        by = ', '.join(f'{axis} by the {by} {confidence:.2f}'
                       for by, (axis, confidence) in notes.get('up_opinions', {}).items())
        words.insert(0, f'up {notes["up"]} by estimate (confidence {notes["up_confidence"]:.2f}{by and "; " + by})')
    return ''.join(f', {word}' for word in words)


def progress_bar() -> Progress:
    """Make a progress bar with counts, elapsed and remaining time, which is silent without a terminal."""
    console = Console(stderr=True)
    return Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    TextColumn('eta'), TimeRemainingColumn(), console=console, disable=not console.is_terminal)


def pace(done: int, left: int, failed: int, seconds: float) -> str:
    """Describe how far a run is, for logs that show no progress bar."""
    rate = done / seconds
    return (f'{done:,} of {done + left:,}, {rate:.2f}/s, {failed:,} failed'
            + (f', {left / rate / 60:.0f} min left' if rate else ''))


def run(main: Callable[[], int]) -> None:
    """Run a program and exit.

    The status is 0 for success and for output whose reader has gone, 1 for failure with one line on standard error,
    2 for wrong use (argparse), and 130 for Ctrl-C. Characters that the output cannot encode are printed as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    try:
        status = main()
        sys.stdout.flush()
    except SystemExit as exit_:
        closed = isinstance(exit_.__context__, BrokenPipeError)  # rich exits with 1 then
        status = 0 if closed else exit_.code
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of the output has closed it
        _discard_output()
        status = 0
    except USER_ERRORS as error:
        print(f'error: {as_called(one_line(error))}', file=sys.stderr)
        _discard_output()
        status = 1
    sys.exit(status)


def one_line(error: Exception) -> str:
    """Describe an error; one of the system is given the name of its file and the remedy."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    parts = [error.filename, error.strerror]
    text = ': '.join(os.fsdecode(part) for part in parts if isinstance(part, (str, bytes)))
    return '; '.join(filter(None, [text, REMEDIES.get(error.errno)]))


def printable(text: str) -> str:
    """Write what a terminal would not show as a character, such as a new line in a file's name, as an escape."""
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def _discard_output() -> None:
    """Drop output that cannot be written, which the interpreter would try to write once more when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
