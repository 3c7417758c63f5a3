"""Find the objects of a splat scene, embed and label them, and cut them out or remove them."""
from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    progress_bar,
    run,
    teacher_for,
)

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    from clipgs_plugin import CLIPGSInferencer, GaussianCloud
    from clipgs_plugin.scenes import SceneObjects
    from clipgs_plugin.scenes.table import ObjectRow

TABLE, LABELLED, COLOURED, SCORES = 'scene.objects.parquet', 'scene.labelled.ply', 'scene.coloured.ply', 'scores.npz'
MARK = '.label_scene'  # in a folder that this program has begun to write, so that a killed run can be repeated
WAYS = ('labels', 'clusters', 'spheres')
UP_SAMPLE = 100_000  # Gaussians that --up auto judges by


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of this program."""
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
    args.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args.add_argument('--json', action='store_true', help='print one JSON object')
    return args


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options and check what will be written."""
    from clipgs_plugin.io import SUFFIXES
    args = make_parser()
    options = args.parse_args(argv)
    for name in ('min_gaussians', 'max_objects', 'turns'):
        if getattr(options, name) < 1:
            args.error(f'--{name.replace("_", "-")} {getattr(options, name)}: expected 1 or more')
    if options.labels and options.split not in (None, 'labels'):
        args.error(f'--labels is for --split labels, not {options.split}; leave one out')
    if options.query is not None and not options.query.strip():
        args.error('--query is empty; name what to look for')
    options.names = [name for word in (options.classes or '').split(',') if (name := word.strip())]
    if options.classes is not None and len(set(options.names)) < 2:
        args.error('--classes names fewer than two classes to choose from; --query TEXT ranks objects by one text')
    for which, out in (*options.cut, *options.remove):
        if not which.strip():
            args.error(f'--cut or --remove names nothing to write to {out}')
        if not out.lower().endswith(SUFFIXES):
            args.error(f'{out}: expected the name of a splat file ({", ".join(SUFFIXES)})')
        if Path(out).exists():
            args.error(f'{out} exists; name another file, or delete it')
    check_folder(args, options.out)
    return options


def check_folder(args: argparse.ArgumentParser, out: Path) -> None:
    """End the program if the folder to write holds something that it did not write."""
    from clipgs_plugin.scenes.table import read_table
    if out.exists() and not out.is_dir():
        args.error(f'{out} is a file; -o names a folder')
    if out.is_dir() and not (out / MARK).is_file() and any(path.name != '.lock' for path in out.iterdir()):
        try:
            read_table(out / TABLE)
        except (ValueError, OSError):
            args.error(f'{out} is not empty and was not written by this program; name another folder')


@dataclass(frozen=True)
class Texts:
    """Scores of the objects for the texts: cosines to each, and probabilities if they are classes."""

    names: tuple[str, ...]
    scores: Tensor  # (M, C)
    kind: str       # 'probability' or 'cosine'

    def best(self, number: int) -> tuple[str, float]:
        """Return the text of the best score of an object, and the score."""
        score, place = self.scores[number].max(0)
        return self.names[int(place)], float(score)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    from clipgs_plugin import read_gaussians
    from clipgs_plugin.io.lock import folder_lock
    from clipgs_plugin.scenes.label_files import scene_columns, valid_rows

    started = time.perf_counter()
    cloud = read_gaussians(args.scene, clean=args.clean)
    print(f'{args.scene}: {len(cloud):,} Gaussians of SH degree {cloud.sh_degree}', file=sys.stderr)
    args.up = up_axis(cloud, args.up)
    kept = valid_rows(args.scene) if args.clean else slice(None)
    columns = {name: values[kept] for name, values in scene_columns(args.scene).items()}
    clipgs = load_inferencer(args.model, args.checkpoint, args.device, args.download)
    clipgs.require_embeddings()
    targets = text_embeddings(clipgs, args)
    objects, way = split(cloud, kept, args, clipgs, targets)
    print(f'{len(objects)} objects by {way}; {int((objects.labels < 0).sum()):,} Gaussians of no object',
          file=sys.stderr)
    if not len(objects):
        raise ValueError(f'{args.scene}: no object of at least {args.min_gaussians} Gaussians by {way}; lower '
                         '--min-gaussians, choose another --split, or check --up')
    embeddings = embed(clipgs, cloud, objects.members, args, 'embedding')
    texts = score(clipgs, embeddings, targets)
    args.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(args.out):
        rows = write_all(cloud, columns, objects, embeddings, texts, clipgs, way, args)
    edits = edit(cloud, columns, objects, embeddings, rows, clipgs, args)
    report(rows, texts, way, edits, time.perf_counter() - started, args)
    return 0


def up_axis(cloud: GaussianCloud, up: str) -> str:
    """Return the named axis, or the estimate of ``auto``, which is printed."""
    if up != 'auto':
        return up
    import torch

    from clipgs_plugin.apis.upright import estimate_up
    sample = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(0))[:UP_SAMPLE]
    axis, confidence, _ = estimate_up(cloud[sample])
    print(f'up {axis} by estimate (confidence {confidence:.2f})', file=sys.stderr)
    return axis


def text_embeddings(clipgs: CLIPGSInferencer, args: argparse.Namespace) -> tuple[tuple[str, ...], Tensor] | None:
    """Embed the classes or the query: names and unit vectors (C, E)."""
    if args.class_embeddings is not None:
        classes = clipgs.classes(class_embeddings=args.class_embeddings)
        return classes.names, classes.embeddings
    with teacher_for(clipgs, 'texts', FROM_FILE):
        if args.names:
            classes = clipgs.classes(list(dict.fromkeys(args.names)), args.templates)
            return classes.names, classes.embeddings
        return None if args.query is None else ((args.query,), clipgs.embed_text(args.query))


def split(cloud: GaussianCloud, kept: ndarray | slice, args: argparse.Namespace, clipgs: CLIPGSInferencer,
          targets: tuple[tuple[str, ...], Tensor] | None) -> tuple[SceneObjects, str]:
    """Find the objects among the Gaussians that were kept of the file, and return them with a word on how."""
    import torch

    from clipgs_plugin import scenes
    inside = torch.arange(len(cloud))
    if args.crop:
        low, high = torch.tensor(args.crop).double().split(3)
        inside = inside[((cloud.means >= low) & (cloud.means <= high)).all(1)]
    source = args.labels
    if source is None and args.split in (None, 'labels'):
        source = scenes.find_labels(args.scene)
    if source is None and args.split == 'labels':
        raise ValueError(f'{args.scene}: no labels in it or beside it; name them with --labels, or choose --split '
                         'clusters')
    if source is not None:
        found = scenes.read_labels(args.scene, source)
        if args.clean and found.shape[:1] == kept.shape:  # else they belong to another scene, or to the valid ones
            found = found[kept]
        found = scenes.split_by_labels(cloud, found, args.background, str(source))[inside]
        way = f'labels ({source})'
    elif args.split == 'spheres':
        def best_cosine(members: Sequence[Tensor]) -> Tensor:
            rows = embed(clipgs, cloud, [inside[each] for each in members], args, 'spheres')
            return (rows @ targets[1].T).amax(1).clamp_min(0)
        found = scenes.split_by_spheres(cloud[inside], args.up, min_gaussians=args.min_gaussians,
                                        score=None if targets is None else best_cosine)
        way = 'spheres'
    else:
        found = scenes.split_by_clusters(cloud[inside], args.up, color=args.color, min_gaussians=args.min_gaussians)
        way = 'clusters'
    labels = torch.full((len(cloud),), -1)
    labels[inside] = found
    objects = scenes.SceneObjects.from_labels(labels, args.min_gaussians, args.max_objects)
    return objects.storable(), way


def embed(clipgs: CLIPGSInferencer, cloud: GaussianCloud, members: Sequence[Tensor], args: argparse.Namespace,
          task: str) -> Tensor:
    """Embed each object, turned so that y is up, (M, E)."""
    import torch

    from clipgs_plugin.ops import axis_change
    turn, rows = axis_change(args.up, 'y'), []
    with progress_bar() as bar:
        for inside in bar.track(members, description=task):
            rows.append(clipgs.embed_gaussians(cloud[inside].transform(turn), turns=args.turns))
    return torch.cat(rows)


def score(clipgs: CLIPGSInferencer, embeddings: Tensor, targets: tuple[tuple[str, ...], Tensor] | None) -> Texts | None:
    """Compare the objects with the classes or the query."""
    from clipgs_plugin.scenes.scores import class_probabilities
    if targets is None:
        return None
    names, vectors = targets
    if len(names) == 1:  # among one class, every probability is 1
        return Texts(names, embeddings @ vectors.T, 'cosine')
    return Texts(names, class_probabilities(embeddings, vectors, clipgs.model.logit_scale.exp().item()), 'probability')


def write_all(cloud: GaussianCloud, columns: dict[str, ndarray], objects: SceneObjects, embeddings: Tensor,
              texts: Texts | None, clipgs: CLIPGSInferencer, way: str, args: argparse.Namespace) -> list[ObjectRow]:
    """Write the table, the scene with a column of objects, the coloured scene and a .ply an object."""
    import numpy as np
    import torch

    from clipgs_plugin import write_gaussians
    from clipgs_plugin.io.files import write_npz
    from clipgs_plugin.scenes import colored
    from clipgs_plugin.scenes.table import describe_objects, write_table
    out, rows = args.out, []
    (out / MARK).touch()
    remove_old(out)
    (out / 'objects').mkdir(exist_ok=True)
    digits = max(4, len(str(int(objects.ids.max()))))
    with progress_bar() as bar:
        described = list(zip(describe_objects(cloud, objects), objects.members))
        for i, (row, members) in enumerate(bar.track(described, description='writing')):
            path = f'objects/{row.object:0{digits}d}.ply'
            label, value = texts.best(i) if texts else ('', None)
            rows.append(replace(row, path=path, label=label if args.query is None else '', score=value))
            write_gaussians(cloud[members], out / path)
    extra = {**columns, 'object': objects.labels.clamp_min(0).numpy().astype(np.int32)}
    if texts:
        least = -1.0 if texts.kind == 'cosine' else 0.0
        extra['score'] = objects.spread(texts.scores.max(1).values, least).numpy().astype(np.float32)
        write_npz(out / SCORES, dict(objects=objects.ids.numpy(), texts=np.array(texts.names),
                                     kind=np.array(texts.kind), scores=texts.scores.numpy().astype(np.float32)))
    write_gaussians(cloud, out / LABELLED, columns=extra)
    write_gaussians(colored(cloud, objects), out / COLOURED)
    notes = dict(scene=str(args.scene.absolute()), gaussians=len(cloud), way=way, up=args.up, model=args.model,
                 checkpoint=args.checkpoint or '', teacher=clipgs.teacher_name, turns=args.turns,
                 texts=list(texts.names) if texts else [])
    write_table(out / TABLE, rows, embeddings.to(torch.float32), notes)
    return rows


def remove_old(out: Path) -> None:
    """Remove what an earlier run wrote, also one that was killed."""
    for path in (out / 'objects').glob('*.ply'):
        if re.fullmatch(r'\d{4,}', path.stem):
            path.unlink()
    for name in (LABELLED, COLOURED, SCORES, TABLE):
        (out / name).unlink(missing_ok=True)


def edit(cloud: GaussianCloud, columns: dict[str, ndarray], objects: SceneObjects, embeddings: Tensor,
         rows: list[ObjectRow], clipgs: CLIPGSInferencer, args: argparse.Namespace) -> list[dict]:
    """Write the scenes of ``--cut`` and ``--remove``."""
    from clipgs_plugin import write_gaussians
    done = []
    for action, wanted in (('cut', args.cut), ('remove', args.remove)):
        for which, out in wanted:
            ids = which_objects(which, objects, embeddings, rows, clipgs, args.names)
            mask = objects.of(ids) if action == 'cut' else ~objects.of(ids)
            if not mask.any():
                raise ValueError(f'--remove {which} leaves no Gaussians for {out}')
            path = Path(out)
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = {name: values[mask.numpy()] for name, values in columns.items()} if is_ply(path) else {}
            write_gaussians(cloud[mask], path, **({'columns': kept} if kept else {}))
            done.append(dict(action=action, which=which, objects=ids, gaussians=int(mask.sum()), path=out))
    return done


def is_ply(path: Path) -> bool:
    """Return True for the name of an INRIA .ply."""
    from clipgs_plugin.io import format_of_name
    return format_of_name(path).name == 'ply'


def which_objects(which: str, objects: SceneObjects, embeddings: Tensor, rows: list[ObjectRow],
                  clipgs: CLIPGSInferencer, classes: list[str]) -> list[int]:
    """Return the ids of the objects that a word of the user means."""
    if re.fullmatch(r'\s*\d{1,18}(\s*,\s*\d{1,18})*\s*', which):
        return [int(word) for word in which.split(',')]
    labelled = [row.object for row in rows if row.label and row.label == which.strip()]
    if labelled:
        return labelled
    if which.strip() in classes:
        raise ValueError(f'no object is labelled {which.strip()!r}; name ids, or another text')
    with teacher_for(clipgs, 'texts', 'name the objects by their ids'):
        cosines = embeddings @ clipgs.embed_text(which)[0]
    return [int(objects.ids[cosines.argmax()])]


def report(rows: list[ObjectRow], texts: Texts | None, way: str, edits: list[dict], seconds: float,
           args: argparse.Namespace) -> None:
    """Print the objects and the files."""
    if texts and texts.kind == 'cosine':
        rows = sorted(rows, key=lambda row: -row.score)
    if args.json:
        from dataclasses import asdict
        print(json.dumps(dict(scene=str(args.scene), way=way, up=args.up, objects=[asdict(row) for row in rows],
                              edits=edits, folder=str(args.out), seconds=round(seconds, 2)), indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # so that brackets in names are not markup
    table = Table('object', *(['label'] if texts and args.query is None else []), *([texts.kind] if texts else []),
                  'Gaussians', 'extent', title=Text(args.query) if args.query else None)
    for row in rows:
        extent = ' x '.join(f'{side:.3g}' for side in row.extent)
        cells = [Text(row.label)] if texts and args.query is None else []
        cells += [f'{row.score:.3f}'] if texts else []
        table.add_row(str(row.object), *cells, f'{row.gaussians:,}', extent)
    Console().print(table)
    for done in edits:
        print(f'{done["action"]} {done["which"]}: objects {", ".join(map(str, done["objects"]))}, '
              f'{done["gaussians"]:,} Gaussians in {done["path"]}')
    print(f'{len(rows)} objects in {args.out} ({seconds:.1f} s)', file=sys.stderr)


def cli() -> None:
    """Run as the installed program ``clipgs-label-scene``."""
    run(main)


if __name__ == '__main__':
    cli()
