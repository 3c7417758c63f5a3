"""Input that a model expects: number of Gaussians, patches, and the attributes of the objects it was trained on."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files

from mmengine.config import Config

from clipgs_plugin.apis.attributes import Ranges, checked_ranges
from clipgs_plugin.apis.models import get_model_config
from clipgs_plugin.apis.multi_view import is_multi_view, require_trained
from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.registry.catalogue import load_catalogue

ATTRIBUTES_FILE = 'attributes.json'
# Transforms that sample, and their option with the number.
SAMPLERS = {'SampleGaussians': 'num', 'SplatsToPoints': 'num_points'}


@dataclass(frozen=True)
class Expectations:
    """Input that a model expects; every part may be unknown.

    Attributes:
        name: Name of the model, or None for no particular one.
        num_points: Number of Gaussians or points of a training object.
        num_groups: Number of patches.
        group_size: Number of Gaussians of a patch.
        reads_color: False if the model reads positions only.
        points_only: True for a published point-cloud model, which reads no opacity, scale or orientation.
        pipeline: Transforms that prepare an object for the model; None if unknown.
        attributes: For each attribute the smallest and largest quantile of any training object, by level.
    """

    name: str | None = None
    num_points: int | None = None
    num_groups: int | None = None
    group_size: int | None = None
    reads_color: bool = True
    points_only: bool = False
    pipeline: list | None = None
    attributes: Ranges = field(default_factory=dict)


def expectations(model: str | None) -> Expectations:
    """Return what a model expects of its input. No weights are read.

    Args:
        model: Name of a shipped model, of an entry of the catalogue of checkpoints, of a config or a shared model, or
            ``views:TEACHER``; None for no particular model.

    Raises:
        FileNotFoundError: The name is unknown.
        ValueError: The teacher of ``views:TEACHER`` is unknown or has no weights, or the card of a shared model
            states attributes in another form.
    """
    if model is None:
        return Expectations()
    published = load_catalogue('checkpoints').get(model)
    if published is not None:
        contract = Contract.from_dict(published['contract'])
        return Expectations(model, contract.num_points, contract.num_groups, contract.group_size,
                            reads_color=contract.color_range is not None, points_only=True)
    shipped = load_catalogue('models').get(model)
    if is_multi_view(model):
        require_trained(model)
    cfg = get_model_config(model)
    encoder = cfg.model.get('encoder') or {}  # absent from models of views
    tokenizer, contract = encoder.get('tokenizer') or {}, _contract_of(encoder.get('backbone'))
    pipeline = cfg.test_dataloader.dataset.pipeline
    sampled = [step[SAMPLERS[kind]] for step in pipeline if (kind := step['type'].rpartition('.')[2]) in SAMPLERS]
    return Expectations(
        model, sampled[-1] if sampled else None,
        tokenizer.get('num_groups', contract and contract.num_groups),
        tokenizer.get('group_size', contract and contract.group_size),
        points_only=contract is not None and tokenizer.get('refine') is False, pipeline=pipeline,
        attributes=_attributes_of(model, cfg, shipped))


def _attributes_of(model: str, cfg: Config, shipped: dict | None) -> Ranges:
    """Return the attributes of the training objects: those of the config, of the shipped or of the shared model."""
    if shipped:
        return _shipped_attributes(shipped['weights'])
    return cfg.get('attribute_quantiles') or checked_ranges(cfg.get('card', {}).get('quantiles', {}),
                                                            f'{model}: quantiles of its card')


def _contract_of(backbone: object) -> Contract | None:
    """Return the contract of an encoder that starts from a published model, which its config need not repeat."""
    name = backbone.get('type') if isinstance(backbone, dict) else backbone
    published = load_catalogue('checkpoints').get(name)
    return Contract.from_dict(published['contract']) if published else None


def _shipped_attributes(weights: str) -> Ranges:
    """Return the recorded attributes of a shipped model, or nothing if it has none."""
    path = files('clipgs_plugin') / 'weights' / weights / ATTRIBUTES_FILE
    return json.loads(path.read_text(encoding='utf-8'))['attributes'] if path.is_file() else {}

