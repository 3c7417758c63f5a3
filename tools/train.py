"""Train the model of a config with mmengine's Runner."""
from __future__ import annotations

import sys
from pathlib import Path

from clipgs_plugin.tools._program import FEATURES, WORLD, add_experiment, parser, run


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, WORLD, FEATURES, 'python tools/train.py clipgs_pointbert-nano_15e_toy-world --amp')
    add_experiment(args, 'train_cfg.max_epochs=5')
    args.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                      help='resume from a checkpoint; without a path from the latest of the work dir, if any')
    args.add_argument('--amp', action='store_true', help='compute in bfloat16, on a GPU or a CPU')
    options = args.parse_args(argv)

    from clipgs_plugin import engine
    try:
        cfg = engine.load_config(options.config, options.work_dir, options.cfg_options)
        engine.check_data(cfg, ('train', 'val'))
        if options.amp:
            engine.use_autocast(cfg)
        if options.resume:
            engine.resume(cfg, options.resume)
    except (FileNotFoundError, ValueError) as error:
        args.error(str(error))
    if options.resume and not cfg.resume:
        print(f'No checkpoint to resume from in {cfg.work_dir}, starting from scratch', file=sys.stderr)
    with (engine.in_a_sentence(cfg.work_dir), engine.claimed(cfg.work_dir),
          engine.launched(cfg, options.launcher) as runner):
        engine.check_batches(runner)
        runner.register_hook(engine.ValidationRecordHook())
        runner.train()
        runner.logger.info(f'Logs, curves and checkpoints are in {Path(cfg.work_dir)}')
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-train``."""
    run(main)


if __name__ == '__main__':
    cli()
