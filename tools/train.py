"""Train a model: mmengine's Runner on a config of this plug-in."""
from __future__ import annotations

import sys
from pathlib import Path

from mmengine.config import DictAction

from clipgs_plugin.tools._program import FEATURES, WORLD, parser


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, WORLD, FEATURES, 'python tools/train.py clipgs_pointbert-nano_20e_toy-world --amp')
    args.add_argument('config', help='path of a config, or the name of a shipped one')
    args.add_argument('--work-dir', help='folder of logs and checkpoints (./work_dirs/NAME of the config)')
    args.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                      help='go on from a checkpoint; without a path from the latest of the work dir, if it has any')
    args.add_argument('--amp', action='store_true', help='compute in bfloat16, on a GPU or a CPU')
    args.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                      help='settings that override the config\'s, like train_cfg.max_epochs=5')
    args.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                      help='what started several processes, pytorch for torchrun (%(default)s)')
    args.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers, not used')
    options = args.parse_args(argv)

    from clipgs_plugin import engine
    try:
        cfg = engine.load_config(options.config, options.work_dir, options.cfg_options)
        if options.amp:
            engine.use_autocast(cfg)
        if options.resume:
            engine.resume(cfg, options.resume)
    except (FileNotFoundError, ValueError) as error:
        args.error(str(error))
    if options.resume and not cfg.resume:
        print(f'Nothing to resume in {cfg.work_dir}, starting at the beginning', file=sys.stderr)
    with engine.launched(cfg, options.launcher) as runner:
        runner.train()
        runner.logger.info(f'Logs, curves and checkpoints are in {Path(cfg.work_dir)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
