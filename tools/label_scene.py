"""Find the objects of a splat scene, embed and label them, and cut them out or remove them."""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._downloads import add_download
from clipgs_plugin.tools._program import (
    AXES,
    FILES,
    FROM_FILE,
    box,
    load_inferencer,
    parser,
    printable,
    progress_bar,
    run,
    teacher_for,
)

if TYPE_CHECKING:
    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.evaluation import ClassEmbeddings
    from clipgs_plugin.scenes import LabelledScene, Scene, SplitOptions


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of this program."""
    from clipgs_plugin.scenes.finding import WAYS
    args = parser(__doc__, FILES, 'python tools/label_scene.py work_dirs/files/red_plain_chair.ply --classes chair,car '
                  '-o work_dirs/scene')
    args.add_argument('scene', type=Path, metavar='SCENE', help='splat file of any format')
    args.add_argument('-o', '--out', type=Path, required=True,
                      help='folder to write; only one that this program wrote is ever replaced')
    texts = args.add_mutually_exclusive_group()
    texts.add_argument('--classes', metavar='NAME,NAME', help='names of classes, separated by commas')
    texts.add_argument('--class-embeddings', type=Path, metavar='FILE',
                       help='.npz or .safetensors of named embeddings, which need no teacher')
    texts.add_argument('--query', metavar='TEXT', help='text to rank the objects by')
    args.add_argument('--templates', default='plain', metavar='NAME', help='prompts of --classes (%(default)s)')
    args.add_argument('--split', choices=WAYS, help='way to find the objects (labels if there are any, else clusters)')
    args.add_argument('--labels', metavar='SOURCE',
                      help='property of the .ply, .npy of one number a Gaussian, classifier.pth of gaussian-grouping, '
                           'or cluster_lang.npz of OpenGaussian (what is found in the scene and beside it)')
    args.add_argument('--background', type=int, default=0, metavar='ID',
                      help='label of what is no object, besides negative ones (%(default)s)')
    args.add_argument('--min-gaussians', type=int, default=200, help='least Gaussians of an object (%(default)s)')
    args.add_argument('--max-objects', type=int, default=1000, help='most objects, the largest (%(default)s)')
    args.add_argument('--color', type=float, default=0.0,
                      help='largest difference of colours within clusters, in [0, 1]; 0 ignores colours (%(default)s)')
    args.add_argument('--up', default='y', choices=[*AXES, 'auto'],
                      help='up axis of the scene, which no format stores; captures mostly have -y (%(default)s)')
    args.add_argument('--clean', action='store_true', help='drop invalid Gaussians instead of refusing the scene')
    args.add_argument('--crop', type=box, metavar='X0,Y0,Z0,X1,Y1,Z1', help='box that the objects lie in')
    for name, what in (('cut', 'objects to write alone'), ('remove', 'objects to leave out of the scene')):
        args.add_argument(f'--{name}', nargs=2, action='append', default=[], metavar=('WHICH', 'OUT.ply'),
                          help=f'{what}: ids such as 3,5, a class that objects are labelled with, or a text, which '
                               'means the most similar object; repeatable')
    args.add_argument('--model', default='clipgs_toy', help='name of tools/list_models.py, or a config (%(default)s)')
    args.add_argument('--checkpoint', default=None, help='weights of a config, or the file of a published model')
    add_download(args)
    args.add_argument('--turns', type=int, default=1,
                      help='turns about the up axis whose embeddings are averaged (%(default)s)')
    args.add_argument('--keep-light', action='store_true',
                      help='embed the colours with the light of the scene in them, which is estimated and removed '
                           'otherwise; the colours that are written always keep it')
    args.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args.add_argument('--json', action='store_true', help='print one JSON object')
    return args


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options and check what will be written."""
    from clipgs_plugin.scenes import check_scene_folder
    args = make_parser()
    options = args.parse_args(argv)
    for name in ('min_gaussians', 'max_objects', 'turns'):
        if getattr(options, name) < 1:
            args.error(f'--{name.replace("_", "-")} {getattr(options, name)}: expected 1 or more')
    if not 0 <= options.color <= 2:
        args.error(f'--color {options.color}: expected a difference of colours, 0 or above')
    if options.labels and options.split not in (None, 'labels'):
        args.error(f'--labels is for --split labels, not {options.split}; leave one out')
    if options.query is not None and not options.query.strip():
        args.error('--query is empty; name what to look for')
    options.names = [name for word in (options.classes or '').split(',') if (name := word.strip())]
    if options.classes is not None and len(set(options.names)) < 2:
        args.error('--classes names fewer than two classes to choose from; --query TEXT ranks objects by one text')
    check_files(args, options)
    try:
        check_scene_folder(options.out)
    except (ValueError, PermissionError) as error:
        args.error(str(error))
    return options


def check_files(args: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that no file is written twice, and none that is read or was there is lost."""
    from clipgs_plugin.io import SUFFIXES
    from clipgs_plugin.scenes import is_replaced
    written = set()
    for which, out in (*options.cut, *options.remove):
        if not which.strip():
            args.error(f'--cut or --remove names nothing to write to {out}')
        if not out.lower().endswith(SUFFIXES):
            args.error(f'{out}: expected the name of a splat file ({", ".join(SUFFIXES)})')
        if Path(out).exists():
            args.error(f'{out} exists; name another file, or delete it')
        if Path(out).resolve() in written:
            args.error(f'{out} is named by two of --cut and --remove; name a file for each')
        if is_replaced(options.out, out):
            args.error(f'{out} is among the results that this run writes to {options.out}; name another file')
        written.add(Path(out).resolve())
    for path in filter(None, (options.scene, options.labels, options.class_embeddings)):
        if Path(path).is_file() and is_replaced(options.out, path):
            args.error(f'{path} is among the results in {options.out}, which this run replaces; name another --out, or '
                       'copy the file to another place')


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    from clipgs_plugin.apis import label_scene
    from clipgs_plugin.scenes import Scene, write_scene_folder

    started = time.perf_counter()
    print(f'reading {args.scene}', file=sys.stderr)
    scene = Scene.read(args.scene, args.clean)
    print(f'{args.scene}: {len(scene.cloud):,} Gaussians of SH degree {scene.cloud.sh_degree}', file=sys.stderr)
    up = up_axis(scene, args.up)
    clipgs = load_inferencer(args.model, args.checkpoint, args.device, args.download)
    clipgs.require_embeddings()
    texts = embed_texts(clipgs, args)
    print('finding the objects', file=sys.stderr)
    with progress_bar() as bar:
        labelled = label_scene(scene, clipgs, texts, split=split_options(args), up=up,
                               balance=not args.keep_light, turns=args.turns,
                               track=lambda items, task: bar.track(items, description=task))
        print(f'{len(labelled)} objects by {labelled.way}; {int((labelled.objects.labels < 0).sum()):,} Gaussians of '
              f'no object; writing {args.out}', file=sys.stderr)
        write_scene_folder(labelled, args.out, lambda items, task: bar.track(items, description=task))
    edits = edit(labelled, clipgs, args)
    report(labelled, edits, time.perf_counter() - started, args)
    return 0


def up_axis(scene: Scene, up: str) -> str:
    """Return the named axis, or the estimate of ``auto``, which is printed."""
    if up != 'auto':
        return up
    from clipgs_plugin.apis.scene import estimate_scene_up
    axis, confidence = estimate_scene_up(scene.cloud)
    print(f'up {axis} by estimate (confidence {confidence:.2f})', file=sys.stderr)
    return axis


def split_options(args: argparse.Namespace) -> SplitOptions:
    """Return the way to find the objects."""
    from clipgs_plugin.scenes import SplitOptions
    return SplitOptions(args.split, args.labels, args.background, args.crop, args.color, args.min_gaussians,
                        args.max_objects)


def embed_texts(clipgs: CLIPGSInferencer, args: argparse.Namespace) -> ClassEmbeddings | None:
    """Embed the classes or the query."""
    if args.class_embeddings is not None:
        return clipgs.classes(class_embeddings=args.class_embeddings)
    from clipgs_plugin.evaluation import ClassEmbeddings
    with teacher_for(clipgs, 'texts', FROM_FILE):
        if args.names:
            return clipgs.classes(list(dict.fromkeys(args.names)), args.templates)
        return None if args.query is None else ClassEmbeddings((args.query,), clipgs.embed_text(args.query))


def edit(labelled: LabelledScene, clipgs: CLIPGSInferencer, args: argparse.Namespace) -> list[dict]:
    """Write the scenes of ``--cut`` and ``--remove``."""
    done = []
    for action, wanted in (('cut', args.cut), ('remove', args.remove)):
        for which, out in wanted:
            with teacher_for(clipgs, 'texts', 'name the objects by their ids'):
                ids = labelled.ids_of(which, clipgs)
            mask = labelled.objects.of(ids) if action == 'cut' else ~labelled.objects.of(ids)
            labelled.write_part(mask, out)
            done.append(dict(action=action, which=which, objects=ids, gaussians=int(mask.sum()), path=out))
    return done


def report(labelled: LabelledScene, edits: list[dict], seconds: float, args: argparse.Namespace) -> None:
    """Print the objects and the files."""
    rows, kind = labelled.rows, labelled.texts.kind if labelled.texts else ''
    if kind == 'cosine':
        rows = sorted(rows, key=lambda row: -row.score)
    if args.json:
        from dataclasses import asdict
        print(json.dumps(dict(scene=str(args.scene), way=labelled.way, up=labelled.up,
                              objects=[asdict(row) for row in rows], edits=edits, folder=str(args.out),
                              seconds=round(seconds, 2)), indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # so that brackets in names are not markup
    names = kind == 'probability'
    table = Table('object', *(['label'] if names else []), *([kind] if kind else []), 'Gaussians', 'extent',
                  title=None if names or not kind else Text(printable(labelled.texts.names[0])))
    for row in rows:
        cells = [Text(printable(row.label))] if names else []
        cells += [f'{row.score:.3f}'] if kind else []
        table.add_row(str(row.object), *cells, f'{row.gaussians:,}', ' x '.join(f'{side:.3g}' for side in row.extent))
    Console().print(table)
    for done in edits:
        print(f'{done["action"]} {printable(done["which"])}: objects {", ".join(map(str, done["objects"]))}, '
              f'{done["gaussians"]:,} Gaussians in {done["path"]}')
    print(f'{len(rows)} objects in {args.out} ({seconds:.1f} s)', file=sys.stderr)


def cli() -> None:
    """Run as the installed program ``clipgs-label-scene``."""
    run(main)


if __name__ == '__main__':
    cli()
