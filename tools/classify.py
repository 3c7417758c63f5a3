"""Classify splat files by the names of classes alone, or by a classifier that was trained on its own classes."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._downloads import add_download
from clipgs_plugin.tools._program import (
    FILES,
    FROM_FILE,
    USER_ERRORS,
    add_preparation,
    add_turns,
    check_output,
    check_up_cue,
    describe,
    load_inferencer,
    one_line,
    parser,
    prepared,
    progress_bar,
    run,
    teacher_for,
    usable_device,
)
from clipgs_plugin.tools.embed import find_files

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.evaluation import ClassEmbeddings

SOURCES = ('--classes', '--classes-file', '--class-embeddings')
CLASS_OPTIONS = ('classes', 'classes_file', 'class_embeddings', 'templates', 'write_class_embeddings')


def parse(argv: list[str] | None):
    """Parse the options and read the names of the classes; None for those of a file of embeddings or a classifier."""
    args = parser(__doc__, FILES, 'python tools/classify.py work_dirs/files --classes chair,table,mug')
    args.add_argument('inputs', nargs='*', type=Path,
                      help='splat files of any format, or folders of them; none if only class embeddings are written')
    classes = args.add_mutually_exclusive_group()
    classes.add_argument('--classes', metavar='NAME,NAME',
                         help='names of the classes, separated by commas; a classifier knows its own')
    classes.add_argument('--classes-file', type=Path, metavar='FILE', help='text file of class names, one a line')
    classes.add_argument('--class-embeddings', type=Path, metavar='FILE',
                         help='.npz or .safetensors of named embeddings, which need no teacher')
    args.add_argument('--templates', default=None, metavar='NAME',
                      help='prompts: plain, toy, objects, FILE.json or FILE.json:KEY (plain)')
    args.add_argument('--write-class-embeddings', type=Path, metavar='FILE',
                      help='.npz or .safetensors to write: the classes as the CLIP model of --model embeds them, for '
                           '--class-embeddings on machines that it does not fit on')
    args.add_argument('--model', default='clipgs_toy', help='name of tools/list_models.py, or a config (%(default)s)')
    args.add_argument('--checkpoint', default=None, help='weights of a config, or the file of a published model')
    add_download(args)
    args.add_argument('--top', type=int, default=5, help='number of classes to show (%(default)s)')
    add_preparation(args)
    add_turns(args)
    args.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args.add_argument('--json', action='store_true', help='print one JSON object a file')
    options = args.parse_args(argv)
    check_up_cue(args, options)
    if options.top < 1:
        args.error(f'--top {options.top}: expected 1 or more')
    if not options.inputs and options.write_class_embeddings is None:
        args.error('name splat files to classify, or the file of --write-class-embeddings')
    check_classes(args, options)
    options.names = None
    if options.classes is not None or options.classes_file is not None:
        names = options.classes.split(',') if options.classes is not None else read_names(options.classes_file)
        options.names = list(dict.fromkeys(filter(None, (name.strip() for name in names))))
        if not options.names:
            args.error(f'{options.classes_file or "--classes"} names no class')
    return options


def check_classes(args: ArgumentParser, options: Namespace) -> None:
    """End the program unless the classes are those of the options, or those of a classifier; set ``own_classes``."""
    from clipgs_plugin.apis.models import get_model_config, is_classifier
    from clipgs_plugin.evaluation.class_file import SUFFIXES, ClassEmbeddings

    options.own_classes = is_classifier(get_model_config(options.model))
    given = [f'--{name.replace("_", "-")}' for name in CLASS_OPTIONS if getattr(options, name) is not None]
    if options.own_classes:
        given += ['--turns'] * (options.turns != 1) + ['--up-cue model'] * (options.up_cue == 'model')
        if given:
            args.error(f'{options.model} is a classifier with classes of its own and does not embed; leave out '
                       f'{", ".join(given)}')
    elif not set(given) & set(SOURCES):
        args.error(f'{options.model} compares objects with names of classes; give one of {", ".join(SOURCES)}')
    if options.class_embeddings and options.templates:
        args.error('--templates has no effect on --class-embeddings, which are embedded already; leave it out')
    if options.write_class_embeddings is not None:
        if options.class_embeddings:
            args.error('--write-class-embeddings embeds class names; give --classes or --classes-file')
        check_output(args, options.write_class_embeddings, SUFFIXES, 'a file of class embeddings', ClassEmbeddings.load)


def read_names(path: Path) -> list[str]:
    """Read the lines of a text file."""
    try:
        return path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not a text file in UTF-8 ({error.reason}); name a file of one class a line'
                         ) from error


def write(classes: ClassEmbeddings, path: Path) -> None:
    """Write class embeddings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    classes.save(path)
    print(f'{len(classes)} classes of {classes.width} numbers, teacher {classes.teacher}, in {path}', file=sys.stderr)


def class_embeddings(clipgs: CLIPGSInferencer, args: Namespace) -> ClassEmbeddings:
    """Embed the classes or read their embeddings, and write them if that is wanted."""
    if args.class_embeddings is not None:
        return clipgs.classes(class_embeddings=args.class_embeddings)
    with teacher_for(clipgs, 'class names', FROM_FILE):
        classes = clipgs.classes(args.names, args.templates or 'plain')
    if args.write_class_embeddings is not None:
        write(classes, args.write_class_embeddings)
    return classes


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if not args.inputs:
        from clipgs_plugin.apis.teacher import embed_classes
        write(embed_classes(args.model, args.names, args.templates or 'plain', usable_device(args.device)),
              args.write_class_embeddings)
        return 0
    files = find_files(args.inputs)
    clipgs = load_inferencer(args.model, args.checkpoint, args.device, args.download)
    classes = None if args.own_classes else class_embeddings(clipgs, args)
    among = f'the {clipgs.model.num_classes} classes of' if classes is None else f'{len(classes)} classes with'
    print(f'Classifying {len(files)} files among {among} {clipgs.name}', file=sys.stderr)
    failed = 0
    with progress_bar() as bar:
        for path in bar.track(files, description='classifying'):
            try:
                cloud, notes = prepared(path, args, clipgs)
                answers = clipgs.classify(cloud, class_embeddings=classes, turns=args.turns)[0][:args.top]
            except USER_ERRORS as error:
                failed += 1
                bar.console.print(f'failed   {one_line(error)}', soft_wrap=True, highlight=False, markup=False)
                continue
            if args.json:
                print(json.dumps({'path': str(path), **notes, 'classes': [
                    {'name': name, 'probability': round(value, 6)} for name, value in answers]}))
            else:
                print(f'{path}: ' + ', '.join(f'{name} {value:.1%}' for name, value in answers) + describe(notes))
    if failed:
        print(f'{failed} of {len(files)} files could not be classified', file=sys.stderr)
    return 1 if failed else 0


def cli() -> None:
    """Run as the installed program ``clipgs-classify``."""
    run(main)


if __name__ == '__main__':
    cli()
