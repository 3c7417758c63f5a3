"""Release the best checkpoint of a run: weights in half precision, a card, and golden embeddings."""
from __future__ import annotations

import json
from pathlib import Path

from clipgs_plugin.tools._program import parser, run

CARD = """# {name}

{parameters:.1f} M parameters: {encoder}. It embeds Gaussians into the space of the teacher `{teacher}`.
`get_model('{name}')` and `--model {name}` build it.

It was trained on the toy world only (docs/toy_world.md); its answers on other objects mean little:

- categories: {categories};
- colours: {colors};
- patterns: {patterns}; tones: {tones}; wears: {wears}.

Made by `bash tools/quickstart.sh` (config `{config}`, seed {seed}) and
`python tools/dev/release_weights.py {arguments}`. The checkpoint is the epoch with the best zero-shot accuracy on the
validation split; the table is of the test split, whose combinations of category and look neither student nor teacher
saw. On other processors, or with other versions of torch, a training ends in slightly other weights.

| {columns} |
|{rule}|
{rows}

Frame: y up. Input: {gaussians} Gaussians, centred, in the unit sphere; more are sampled. Licence: Apache-2.0.

`weights.safetensors` is float16. `golden.json` holds the embeddings of {goldens},
files of the test suite's real data, to three digits.
"""


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'bash tools/quickstart.sh',
                  'python tools/dev/release_weights.py work_dirs/quickstart my_toy '
                  '--golden work_dirs/quickstart/files/*.ply')
    args.add_argument('run', type=Path, help='work dir of tools/train.py')
    args.add_argument('name', help='name of the model and of its folder in clipgs_plugin/weights')
    args.add_argument('--golden', type=Path, nargs='+', default=[], help='files for golden embeddings')
    options = args.parse_args(argv)

    import safetensors.torch

    import clipgs_plugin
    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.apis.models import get_model
    from clipgs_plugin.apis.report import collect_report
    from clipgs_plugin.apis.report_runs import best_checkpoint, dumped_config
    from clipgs_plugin.io.files import write_whole
    from clipgs_plugin.toy_world import CATEGORIES, COLORS, PATTERNS, TONES, WEARS
    out = Path(clipgs_plugin.__file__).parent / 'weights' / options.name
    out.mkdir(parents=True, exist_ok=True)
    model = get_model(dumped_config(options.run), best_checkpoint(options.run))
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    write_whole(out / 'weights.safetensors', [safetensors.torch.save(state)])  # save_file makes it private

    model = get_model(dumped_config(options.run), out / 'weights.safetensors')
    clipgs = CLIPGSInferencer(model)
    golden = {path.name: [round(x, 3) for x in clipgs.embed_gaussians(path)[0].tolist()] for path in options.golden}
    (out / 'golden.json').write_text(json.dumps(golden) + '\n', encoding='utf-8')

    report, cfg = collect_report(options.run), model.cfg
    backbone, tokenizer = cfg.model.encoder.backbone, cfg.model.encoder.tokenizer
    golden_paths = ' '.join(f'.../{path.name}' for path in options.golden)
    (out / 'README.md').write_text(CARD.format(
        name=options.name, parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        encoder=f'{tokenizer.num_groups} patches of {tokenizer.group_size} Gaussians, '
                f'{backbone.type.rpartition(".")[-1]} of {backbone.depth} blocks of {backbone.embed_dims}',
        teacher=cfg.teacher.model, categories=', '.join(CATEGORIES), colors=', '.join(COLORS),
        patterns=', '.join(PATTERNS), tones=', '.join(TONES), wears=', '.join(WEARS),
        config=Path(cfg.filename).stem, seed=cfg.randomness.seed, gaussians=f'{cfg.num_gaussians:,}',
        arguments=f'{options.run} {options.name} --golden {golden_paths}', columns=' | '.join(report.columns),
        rule='|'.join(['---'] * len(report.columns)), rows='\n'.join(f'| {" | ".join(row)} |' for row in report.rows),
        goldens=', '.join(f'`{name}`' for name in golden)), encoding='utf-8')
    size = (out / 'weights.safetensors').stat().st_size / 1e6
    print(f'{out}: {size:.1f} MB, {len(golden)} golden embeddings')
    return 0


if __name__ == '__main__':
    run(main)
