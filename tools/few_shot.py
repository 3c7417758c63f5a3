"""Classify objects from a few examples by heads on frozen features, and by tuning the encoder."""
from __future__ import annotations

import json
import re
import sys
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipgs_plugin.tools._program import parser, progress_bar, run, usable_device
from clipgs_plugin.tools._settings import settings_action

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn

    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.datasets import Episode, FrozenFeatures, PreparedObjects
    from clipgs_plugin.evaluation import ClassEmbeddings, FewShotScore
    from clipgs_plugin.models.heads import FewShotHead

WORLD = ('python tools/make_toy_world.py work_dirs/few_shot_world --num-train 1200 --num-val 0 --num-test 1200')
INITIAL = 'initial'
EXAMPLE = 'python tools/few_shot.py clipgs_pointbert-nano_15e_toy-world-few-shot clipgs_toy'


def parse(argv: list[str] | None):
    args = parser(__doc__, WORLD, EXAMPLE)
    args.add_argument('config', help='path of a config with few_shot=dict(...), or name of a shipped one')
    args.add_argument('checkpoint', nargs='?',
                      help='weights of the config, a model of tools/list_models.py, or "initial" for the weights that '
                      'a training of the config starts from; files of features need none')
    args.add_argument('--work-dir', type=Path, help='folder of features and folds (./work_dirs/CONFIG/MODEL)')
    args.add_argument('--folds', type=Path, help='folder of folds that an earlier run wrote, in place of new ones')
    args.add_argument('--protocol', choices=['fixed', 'published'],
                      help='published adds the best result over what the literature chooses on the test set')
    args.add_argument('--only', nargs='+', default=[], metavar='HEAD', help='heads of the config to run')
    args.add_argument('--workers', type=int, default=0, help='processes that load objects (%(default)s)')
    args.add_argument('--device', default='cpu', help='device that embeds the objects (%(default)s)')
    args.add_argument('--cfg-options', nargs='+', action=settings_action(), metavar='KEY=VALUE',
                      help='settings that override the config, for example few_shot.trials=3')
    args.add_argument('--json', action='store_true', help='print the results as one JSON object')
    return args.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    from clipgs_plugin import get_config
    from clipgs_plugin.io.lock import folder_lock
    with redirect_stdout(sys.stderr):  # of what mmengine logs; standard output has the results alone
        cfg = get_config(options.config, options.cfg_options)
    task = checked_task(cfg, options)
    heads = {name: build_head(name, head) for name, head in chosen_heads(task.heads, options.only).items()}
    require_objects(task, heads)
    protocol = options.protocol or task.protocol
    work_dir = options.work_dir or default_work_dir(options.config, options.checkpoint)
    work_dir.mkdir(parents=True, exist_ok=True)

    with folder_lock(work_dir):
        tasks, text = tasks_and_text(cfg, options, work_dir, heads)
        scores = run_heads(task.heads, heads, tasks, text, protocol, work_dir)
        if options.json:
            print(json.dumps({name: {setting: score.to_dict() for setting, score in row.items()}
                              for name, row in scores.items()}))
        else:
            print(table(scores, list(tasks), protocol))
        print(f'Features and folds are in {work_dir}', file=sys.stderr)
        save_scores(work_dir, options.config, scores)
    return 0


def run_heads(configs: dict, heads: dict[str, FewShotHead], tasks: dict[str, Task], text: ClassEmbeddings | None,
              protocol: str, work_dir: Path) -> dict[str, dict[str, FewShotScore]]:
    """Run each head in all trials of each setting; those of heads that take objects are kept one by one."""
    from clipgs_plugin.evaluation.few_shot import check_disjoint, few_shot_score, mean_and_std
    from clipgs_plugin.evaluation.trials import KeptTrials
    scores: dict[str, dict[str, FewShotScore]] = {name: {} for name in heads}
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar())
        kept = None
        for name, setting in bar.track([(name, setting) for setting in tasks for name in heads], description='heads'):
            task, head = tasks[setting], heads[name]
            if head.takes == 'features':
                scores[name][setting] = few_shot_score(head, task.episodes, task.support, task.query, text, protocol)
                continue
            if task.query is not None:
                check_disjoint(task.support, task.query)
            kept = kept or stack.enter_context(KeptTrials(work_dir / 'trials.jsonl'))
            episodes = bar.track(task.episodes, description=f'{name}, {setting}')
            mark = json.dumps([dict(configs[name]), *(each.features.fingerprint for each in task.objects)], default=str)
            found = kept.score(head, mark, episodes, task.objects[0], task.objects[-1], text, protocol)
            mean, std = mean_and_std(found.accuracies)
            print(f'{name}, {setting}: {mean:.1f} ± {std:.1f} in {len(task.episodes)} trials', file=sys.stderr)
            scores[name][setting] = found
    return scores


def default_work_dir(config: str, checkpoint: str | None) -> Path:
    """Name a folder by config and model; that of a file has the name of its folder too, and files of features none."""
    model = '-'.join(Path((checkpoint or '').removesuffix('.pth')).parts[-2:])
    return Path('work_dirs', Path(config).stem, re.sub(r'[^\w.-]+', '-', model).strip('-.'))


def checked_task(cfg: Config, options):
    """Return the few-shot part of a config."""
    task = cfg.get('few_shot')
    data = 'folds' if (task or {}).get('folds') else 'support'
    missing = [key for key in (data, 'settings', 'heads') if not (task or {}).get(key)]
    if missing:
        raise ValueError(f'config {options.config} lacks {", ".join(f"few_shot.{key}" for key in missing)}; name the '
                         'data, the ways and shots, and the heads, as in configs/fewshot')
    if data == 'folds' and options.folds is not None:
        raise ValueError(f'config {options.config} has published folds; leave out --folds {options.folds}')
    return task


def chosen_heads(heads: dict, only: list[str]) -> dict:
    """Return the heads that ``--only`` names, or all."""
    unknown = [name for name in only if name not in heads]
    if unknown:
        raise ValueError(f'--only {" ".join(unknown)}: expected some of {", ".join(map(repr, heads))}')
    return {name: head for name, head in heads.items() if not only or name in only}


def build_head(name: str, config: dict) -> FewShotHead:
    """Build a head; a wrong type or setting is an error that names it."""
    from clipgs_plugin.models.heads import FewShotHead
    from clipgs_plugin.registry import MODELS
    text, remedy = f'few_shot.heads has {name!r}={config}', 'see the heads in docs/few_shot.md'
    try:
        head = MODELS.build(dict(config))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{text}: {str(error.args[0]).split(". ")[0]}; {remedy}') from error
    if not isinstance(head, FewShotHead):
        raise ValueError(f'{text}: a {type(head).__name__} is no few-shot head; {remedy}')
    return head


def require_objects(task, heads: dict[str, FewShotHead]) -> None:
    """Check that heads that take objects get any."""
    tuned = [name for name, head in heads.items() if head.takes == 'objects']
    files = [part for part in ('support', 'query') if isinstance(task.get(part), str)]
    if tuned and files and not task.get('folds'):
        raise ValueError(f'few_shot.{files[0]} is a file of features, and {tuned[0]!r} tunes the encoder on objects; '
                         'name the dataset in its place, or choose other heads with --only')


class Task(NamedTuple):
    """Tasks of a setting and the features of their objects; without ``query`` one set has both."""

    episodes: list[Episode]
    support: FrozenFeatures
    query: FrozenFeatures | None
    objects: tuple[PreparedObjects, ...]  # of the sets that are not files of features


def tasks_and_text(cfg: Config, options, work_dir: Path, heads: dict[str, FewShotHead],
                   ) -> tuple[dict[str, Task], ClassEmbeddings | None]:
    """Return the tasks of each setting with their features, and the class embeddings."""
    from clipgs_plugin.evaluation import ClassEmbeddings
    task, needs_text = cfg.few_shot, any(head.needs_text for head in heads.values())
    sources = [task.folds] if task.get('folds') else [task[part] for part in ('support', 'query') if task.get(part)]
    clipgs = None
    if not all(isinstance(dataset, str) for dataset in sources) or (
            needs_text and task.get('class_embeddings') is None):
        clipgs = load_model(cfg, options)
        give_encoder(clipgs, heads)
    tasks = (published_tasks if task.get('folds') else drawn_tasks)(task, clipgs, options, work_dir)
    text = None
    if task.get('class_embeddings') is not None:
        text = ClassEmbeddings.load(task.class_embeddings)
    elif needs_text:
        text = clipgs.classes(next(iter(tasks.values())).support.classes, task.templates)
    return tasks, text


def give_encoder(clipgs: CLIPGSInferencer, heads: dict[str, FewShotHead]) -> None:
    """Give the heads that tune an encoder that of the model."""
    for name, head in heads.items():
        if head.takes == 'objects':
            try:
                head.start_from(getattr(clipgs.model, 'encoder', clipgs.model))
            except ValueError as error:
                raise ValueError(f'head {name!r} with the model {clipgs.name}: {error}, or choose other heads with '
                                 '--only') from error


def drawn_tasks(task, clipgs: CLIPGSInferencer | None, options, work_dir: Path) -> dict[str, Task]:
    """Embed support and queries once, and draw or read the folds of all settings."""
    from clipgs_plugin.evaluation.few_shot import setting_name
    parts = {part: task[part] for part in ('support', 'query') if task.get(part)}
    found = {part: embed(clipgs, dataset, work_dir / f'{part}.npz', options.workers) for part, dataset in parts.items()}
    support, query = found['support'], found.get('query')
    objects = prepared_objects(clipgs, [(parts[part], found[part]) for part in parts])
    return {setting_name(**setting): Task(load_or_draw(task, setting, support, query, options.folds, work_dir),
                                          support, query, objects) for setting in task.settings}


def published_tasks(task, clipgs: CLIPGSInferencer, options, work_dir: Path) -> dict[str, Task]:
    """Embed the objects of the published folds of each setting."""
    from clipgs_plugin.datasets import published_episodes
    from clipgs_plugin.evaluation.few_shot import setting_name
    tasks = {}
    for setting in task.settings:
        name = setting_name(**setting)
        parts = {part: {**task.folds.to_dict(), **setting, 'part': part} for part in ('train', 'test')}
        sets = [(dataset, embed(clipgs, dataset, work_dir / f'{name}-{part}.npz', options.workers))
                for part, dataset in parts.items()]
        support, query = (features for _, features in sets)
        tasks[name] = Task(published_episodes(support, query), support, query, prepared_objects(clipgs, sets))
    return tasks


def prepared_objects(clipgs: CLIPGSInferencer | None, sets: list[tuple[dict | str, FrozenFeatures]],
                     ) -> tuple[PreparedObjects, ...]:
    """Return the objects of datasets, which are read when a head asks for them."""
    from clipgs_plugin.datasets import PreparedObjects
    return tuple(PreparedObjects(dataset, clipgs.transform, features) for dataset, features in sets
                 if not isinstance(dataset, str))


def embed(clipgs: CLIPGSInferencer | None, dataset: dict | str, cache: Path, workers: int) -> FrozenFeatures:
    """Embed the objects of a dataset, or read a file of features."""
    from clipgs_plugin.apis.frozen import frozen_features
    from clipgs_plugin.datasets import FrozenFeatures
    if isinstance(dataset, str):
        found = FrozenFeatures.load(dataset)
    else:
        with progress_bar() as bar:
            found = frozen_features(clipgs, dict(dataset), cache, workers=workers,
                                    track=lambda batches: bar.track(batches, description=cache.stem))
    print(f'{cache.stem}: {found}', file=sys.stderr)
    return found


def load_model(cfg: Config, options) -> CLIPGSInferencer:
    """Load the weights of the config, or a model by its name."""
    import warnings

    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.apis.model_list import has_weights
    if options.checkpoint is None:
        raise ValueError(f'config {options.config} names objects to embed; add a checkpoint or the name of a model, or '
                         f'{INITIAL!r} for the weights before training')
    device = usable_device(options.device)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of models that know few objects, which the table shows
        if has_weights(options.checkpoint):
            return CLIPGSInferencer(options.checkpoint, device=device)
        if options.checkpoint == INITIAL:
            return CLIPGSInferencer(initial_model(cfg).to(device), device=device)
        return CLIPGSInferencer(cfg, options.checkpoint, device)


def initial_model(cfg: Config) -> nn.Module:
    """Build the model of a config with the weights that a training of it starts from."""
    import torch

    from clipgs_plugin import get_model
    torch.manual_seed(cfg.get('randomness', {}).get('seed', 0))
    model = get_model(cfg)
    model.init_weights()
    return model.eval()


def load_or_draw(task, setting: dict, support: FrozenFeatures, query: FrozenFeatures | None, folds: Path | None,
                 work_dir: Path) -> list[Episode]:
    """Read the folds of a setting, or draw and write them."""
    from clipgs_plugin.datasets import FewShotEpisodes, load_episodes
    from clipgs_plugin.evaluation.few_shot import setting_name
    file = f'{setting_name(**setting)}.json'
    if folds is not None:
        return load_episodes(folds / file)
    episodes = FewShotEpisodes(support, query, **setting, queries=task.queries, trials=task.trials, seed=task.seed,
                               scarce=task.get('scarce', 'refuse'))
    (work_dir / 'folds').mkdir(exist_ok=True)
    episodes.save(work_dir / 'folds' / file)
    return list(episodes)


def table(scores: dict[str, dict[str, FewShotScore]], settings: list[str], protocol: str) -> str:
    """Format a Markdown table of mean and standard deviation; the published numbers have rows of their own."""
    from clipgs_plugin.engine.experiments import markdown_table
    from clipgs_plugin.evaluation.few_shot import mean_and_std
    rows, leaks = [], []
    for name, row in scores.items():
        rows.append([name, *(f'{m:.1f} ± {s:.1f}' for m, s in (mean_and_std(row[key].accuracies) for key in settings))])
        leak = row[settings[0]].leak
        if protocol == 'published' and leak:
            rows.append([f'{name}, published protocol',
                         *(f'{m:.1f} ± {s:.1f}' for m, s in (mean_and_std(row[key].published) for key in settings))])
            leaks.append(f'{name}: {leak}.')
    text = markdown_table(['head', *settings], rows)
    return text if not leaks else (
        f'{text}\n\nThe published protocol chooses on the test queries, so its numbers are optimistic. '
        + ' '.join(leaks))


def save_scores(work_dir: Path, config: str, scores: dict[str, dict[str, FewShotScore]]) -> None:
    """Write ``few_shot.json`` for ``tools/report.py``."""
    from clipgs_plugin.apis.report_runs import FEW_SHOT
    from clipgs_plugin.io.files import write_whole
    plain = {name: {setting: score.to_dict() for setting, score in row.items()} for name, row in scores.items()}
    write_whole(work_dir / FEW_SHOT, [json.dumps(dict(config=Path(config).stem, scores=plain), indent=1).encode()])


def cli() -> None:
    """Run as the installed program ``clipgs-few-shot``."""
    run(main)


if __name__ == '__main__':
    cli()
