"""Evaluate a checkpoint on the test split of its config, or a model by name; metrics.json of the work dir keeps it."""
from __future__ import annotations

import json
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

from clipgs_plugin.tools._program import FEATURES, TRAINED, WORLD, add_experiment, check_output, parser, run

# Models of which no checkpoint exists.
WITHOUT_WEIGHTS = ('MultiViewCLIP', 'CachedViews')


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, WORLD, FEATURES, TRAINED, 'python tools/test.py '
                  'work_dirs/run/clipgs_pointbert-nano_15e_toy-world.py work_dirs/run/epoch_15.pth')
    add_experiment(args, 'test_dataloader.batch_size=8')
    args.add_argument('checkpoint', type=Path, nargs='?',
                      help='checkpoint with exactly the weights of the model; names of models bring their own')
    args.add_argument('--out', type=Path, metavar='FILE.npz', help='file for embeddings and labels of the objects')
    args.add_argument('--json', action='store_true', help='print only the metrics, as one JSON object')
    options = args.parse_args(argv)
    if options.out is not None and options.out.exists():
        check_output(args, options.out, ('.npz',), 'a file of predictions', _require_predictions)

    from mmengine.dist import is_main_process
    from mmengine.model import is_model_wrapper

    from clipgs_plugin import engine
    from clipgs_plugin.evaluation.record import NAME, EvaluationRecord
    try:
        cfg = engine.load_config(options.config, options.work_dir, options.cfg_options)
        change = engine.follow_test_data(cfg)
        engine.check_data(cfg, ('test',))
        weights = _weights_of_name(options, cfg)
        if options.checkpoint is not None and not options.checkpoint.is_file():
            raise FileNotFoundError(f'checkpoint {options.checkpoint} does not exist')
        if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
            raise ValueError(f'config {options.config} has no test_dataloader and test_evaluator')
        dump = None if options.out is None else engine.DumpPredictions(options.out)
    except (FileNotFoundError, ValueError) as error:
        args.error(str(error))
    record_path = Path(cfg.work_dir, NAME)
    check_output(args, record_path, (NAME,), 'a record of an evaluation', EvaluationRecord.load)
    if change:
        print(f'note: {change}', file=sys.stderr)
    cfg.load_from, cfg.resume = None, False
    # The log goes to standard error, so that standard output has the results alone.
    with (redirect_stdout(sys.stderr), engine.in_a_sentence(cfg.work_dir),
          engine.launched(cfg, options.launcher) as runner):
        if options.checkpoint is not None:
            runner.load_checkpoint(str(options.checkpoint), map_location='cpu', strict=True)
        if weights is not None:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            model.load_state_dict(weights)
        if dump is not None:
            runner.test_evaluator.metrics.append(dump)
        metrics = runner.test()
        main_process = is_main_process()
        if main_process:
            engine.record_of(cfg, runner.test_evaluator, metrics, len(runner.test_dataloader.dataset),
                             options.checkpoint).save(record_path)
    if main_process:
        print(json.dumps(metrics) if options.json else _table(metrics))
        print(f'The record of the evaluation is in {record_path}', file=sys.stderr)
        if dump is not None:
            print(f'Predictions are in {options.out}', file=sys.stderr)
    return 0


def _weights_of_name(options, cfg) -> dict | None:
    """Return the weights that the name of a model stands for, or None if a checkpoint has them or it has none."""
    from clipgs_plugin.apis.model_list import has_weights
    from clipgs_plugin.apis.models import get_model

    kind = str(cfg.get('model', {}).get('type')).rpartition('.')[2]
    if options.checkpoint is not None or kind in WITHOUT_WEIGHTS:
        return None
    if not has_weights(options.config):
        raise ValueError(f'config {options.config} has a model with weights; name their checkpoint')
    return get_model(options.config).state_dict()


def _table(metrics: dict[str, float]) -> str:
    width = max(map(len, metrics), default=0)
    return '\n'.join(f'{name:<{width}}  {value:8.2f}' for name, value in metrics.items())


def _require_predictions(path: Path) -> None:
    """Raise a ValueError unless this program wrote a file."""
    with zipfile.ZipFile(path) as archive:
        if 'embedding.npy' not in archive.namelist():
            raise ValueError(f'{path} has no embeddings')


def cli() -> None:
    """Run as the installed program ``clipgs-test``."""
    run(main)


if __name__ == '__main__':
    cli()
