"""Model card of a shared model: what it was trained on, what it expects, and how well it does."""
from __future__ import annotations

from collections.abc import Mapping

MARK = '<!-- clipgs_plugin wrote this card and writes it anew; remove this line to keep your own text -->'
TAGS = ['clipgs_plugin', 'clip-gs', '3d-gaussian-splatting', 'gaussian-splatting', '3d', 'clip']
PAPER = '[CLIP-GS](https://arxiv.org/abs/2412.19142)'


def model_card(name: str, config: Mapping, width: int | None, parameters: int, scale: float | None) -> str:
    """Write the card of a shared model in Markdown with the hub's YAML header.

    Args:
        name: Folder or repository of the model.
        config: Content of its ``config.json``; ``card`` in it may hold ``license``, ``data``, ``metrics`` and
            ``quantiles``.
        width: Width of the embeddings.
        parameters: Number of parameters.
        scale: Factor on cosines, the inverse temperature.
    """
    from huggingface_hub import ModelCardData

    about = config.get('card', {})
    classes = config['model'].get('classes')
    header = ModelCardData(library_name='clipgs_plugin', license=about.get('license', 'unknown'), tags=TAGS,
                           pipeline_tag=None if classes else 'feature-extraction')
    facts = ([('Classes', f'{len(classes)}: {", ".join(classes)}')] if classes else
             _space(config['teacher'] or {}, width))
    facts += [('Parameters', f'{parameters:,}'), ('Training data', about.get('data', 'not stated'))]
    if scale is not None:
        facts.append(('Factor on cosines', f'{scale:.4g}'))
    what = (f'A classifier of 3D Gaussian Splatting objects with the encoder of {PAPER}' if classes else
            f'An encoder of 3D Gaussian Splatting objects into CLIP\'s space ({PAPER})')
    steps = ' -> '.join(_step(step) for step in config['pipeline'])
    text = '\n\n'.join([
        f'---\n{header.to_yaml()}\n---', MARK, f'# {name.rpartition("/")[2]}',
        f'{what}, by `clipgs_plugin`.',
        _table(('', ''), facts), '## Use', _use(name, bool(classes)), '## Input',
        'One object a file, y up, as `.ply`, `.spz`, `.splat`, `.sog` or `.ksplat`. The inferencer prepares it: '
        f'`{steps}`.', '## Metrics', _metrics(about.get('metrics', {})), '## Attributes of the data',
        _quantiles(about.get('quantiles', {}))])
    return text + '\n'


def _space(teacher: Mapping, width: int | None) -> list[tuple[str, str]]:
    teaches = ' '.join(str(teacher[key]) for key in ('model', 'pretrained') if teacher.get(key)) or 'none'
    return [('Embeddings', f'{width or "?"} numbers, in the space of the teacher'), ('Teacher', f'`{teaches}`')]


def _step(step: Mapping) -> str:
    settings = ', '.join(f'{key}={value!r}' for key, value in step.items() if key != 'type')
    return f'{step["type"].rpartition(".")[2]}({settings})'


def _use(name: str, classifies: bool) -> str:
    line = ("classes = clipgs.classify('chair.ply')[0]  # names and probabilities, best first" if classifies else
            "scores = clipgs.embed_gaussians('chair.ply') @ clipgs.embed_text(['a red chair']).T")
    return ('```python\nfrom clipgs_plugin import CLIPGSInferencer\n'
            f'clipgs = CLIPGSInferencer({name!r})\n{line}\n```')


def _metrics(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return 'None given.'
    return _table(('metric', 'value'), [(f'`{key}`', f'{value:.4g}') for key, value in metrics.items()])


def _quantiles(quantiles: Mapping) -> str:
    attributes = quantiles.get('attributes')
    if not attributes:
        return 'Quantiles were not computed.'
    levels = list(next(iter(attributes.values())))
    rows = [(name, *(f'{low:.4g} to {high:.4g}' for low, high in (ranges[level] for level in levels)))
            for name, ranges in attributes.items()]
    return (f'Smallest and largest quantile of any of {quantiles["objects"]:,} prepared objects, over the Gaussians of '
            'the object. `tools/doctor.py FILE --model NAME` compares a file with the medians.\n\n'
            + _table(('', *(f'{100 * float(level):g} %' for level in levels)), rows))


def _table(columns: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [columns, ('---',) * len(columns), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell).replace('|', '\\|').replace('\n', ' ') for cell in line) + ' |'
                     for line in lines)
