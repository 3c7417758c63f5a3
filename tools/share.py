"""Save a trained model as a folder that anyone can load by name, and upload it to the Hugging Face hub."""
from __future__ import annotations

import sys
from pathlib import Path

from clipgs_plugin.tools._program import FEATURES, TRAINED, WORLD, parser, run

SPLITS = ('train', 'val', 'test')


def parse(argv: list[str] | None):
    """Parse the options."""
    args = parser(__doc__, WORLD, FEATURES, TRAINED, 'python tools/share.py '
                  'work_dirs/run/clipgs_pointbert-nano_15e_toy-world.py work_dirs/run/epoch_15.pth work_dirs/shared '
                  '--data train')
    args.add_argument('config', help='path of the config of the run, or name of a shipped one')
    args.add_argument('checkpoint', type=Path, help='checkpoint with exactly the weights of the model')
    args.add_argument('folder', type=Path, help='folder to write; files of other programs are not replaced')
    args.add_argument('--data', metavar='SPLIT', help='train, val or test of the config, or a folder of splat files: '
                      'the model card states quantiles of its attributes, which tools/doctor.py compares files with')
    args.add_argument('--results', type=Path, metavar='FILE.json', help='metrics, as tools/test.py --json prints them')
    args.add_argument('--license', default='unknown', help='licence of the weights, as the hub names it (%(default)s)')
    args.add_argument('--push', metavar='OWNER/NAME', help='repository of the hub to upload to, made if absent')
    args.add_argument('--private', action='store_true', default=None, help='make a new repository private')
    options = args.parse_args(argv)
    if options.push is not None:
        from clipgs_plugin.models.pretrained import HUB, is_repository
        if options.push.startswith(HUB) or not is_repository(options.push):
            args.error(f'--push {options.push}: expected OWNER/NAME')
    if options.data is not None and options.data not in SPLITS and not Path(options.data).is_dir():
        args.error(f'--data {options.data} is neither one of {", ".join(SPLITS)} nor a folder')
    return options


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)

    from clipgs_plugin.apis.models import get_model
    from clipgs_plugin.apis.sharing import read_metrics
    from clipgs_plugin.models.pretrained import save_pretrained, upload

    if not args.checkpoint.is_file():
        raise FileNotFoundError(f'{args.checkpoint}: file not found; give the checkpoint of a training run')
    about = {'license': args.license}
    if args.results is not None:
        about['metrics'] = read_metrics(args.results)
    model = get_model(args.config, args.checkpoint)
    _warn_about_teacher(model.cfg.get('teacher') or {})
    if args.data is not None:
        about |= _describe(model.cfg, args.data)
    save_pretrained(model, args.folder, args.push or args.folder.resolve().name, about)
    print(f'{args.folder}: load it with CLIPGSInferencer({str(args.folder)!r}) or --model {args.folder}')
    if args.push is not None:
        print(upload(args.folder, args.push, private=args.private))
    return 0


def _describe(cfg, data: str) -> dict:
    """Return a description of a split or folder, and the quantiles of its attributes."""
    from clipgs_plugin import read_gaussians
    from clipgs_plugin.apis.attributes import attribute_ranges
    from clipgs_plugin.apis.sharing import clouds_of_split, prepared
    from clipgs_plugin.io import find_splats

    print(f'Quantiles of {data}', file=sys.stderr)
    if data in SPLITS:
        clouds = clouds_of_split(cfg, data)
        source = f'{Path(cfg[f"{data}_dataloader"].dataset.root).name}, split {data}'
    else:
        clouds, source = map(read_gaussians, find_splats(Path(data))), Path(data).resolve().name
    split = 'train' if data == 'train' else 'test'  # a model knows what its augmentation makes of objects
    return {'data': source, 'quantiles': attribute_ranges(prepared(cfg, clouds, split))}


def _warn_about_teacher(teacher: dict) -> None:
    """Tell that a teacher in a file of this machine does not travel with the model."""
    for value in (teacher.get('model'), teacher.get('pretrained')):
        if value is not None and (Path(value).exists() or str(value).startswith('local-dir:')):
            print(f'note: the teacher {value} lies on this machine only; texts and images need it wherever the model '
                  'is loaded, so name one of open_clip or of the hub instead', file=sys.stderr)


def cli() -> None:
    """Run as the installed program ``clipgs-share``."""
    run(main)


if __name__ == '__main__':
    cli()
