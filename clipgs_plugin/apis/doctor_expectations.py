"""Input that a model expects: number of Gaussians, patches, and the attributes of the objects it was trained on."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
from mmengine.config import Config

from clipgs_plugin.apis.configs import get_config
from clipgs_plugin.apis.multi_view import is_multi_view, multi_view_config, require_trained
from clipgs_plugin.apis.sharing import is_shared
from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.pretrained import pretrained_config
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.structures import GaussianCloud

LEVELS = (0.05, 0.5, 0.95)  # quantiles over the Gaussians of an object
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
    attributes: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)


def expectations(model: str | None) -> Expectations:
    """Return what a model expects of its input. No weights are read.

    Args:
        model: Name of a shipped model, of an entry of the catalogue of checkpoints, of a config or a shared model, or
            ``views:TEACHER``; None for no particular model.

    Raises:
        FileNotFoundError: The name is unknown.
        ValueError: The teacher of ``views:TEACHER`` is unknown or has no weights.
    """
    if model is None:
        return Expectations()
    published = load_catalogue('checkpoints').get(model)
    if published is not None:
        contract = Contract.from_dict(published['contract'])
        return Expectations(model, contract.num_points, contract.num_groups, contract.group_size,
                            reads_color=contract.color_range is not None, points_only=True)
    shipped = load_catalogue('models').get(model)
    cfg = _config_of(model, shipped)
    encoder = cfg.model.get('encoder') or {}  # absent from models of views
    tokenizer, contract = encoder.get('tokenizer') or {}, _contract_of(encoder.get('backbone'))
    pipeline = cfg.test_dataloader.dataset.pipeline
    sampled = [step[SAMPLERS[kind]] for step in pipeline if (kind := step['type'].rpartition('.')[2]) in SAMPLERS]
    attributes = cfg.get('attribute_quantiles') or (_shipped_attributes(shipped['weights']) if shipped else {})
    return Expectations(
        model, sampled[-1] if sampled else None,
        tokenizer.get('num_groups', contract and contract.num_groups),
        tokenizer.get('group_size', contract and contract.group_size),
        points_only=contract is not None and tokenizer.get('refine') is False, pipeline=pipeline,
        attributes=attributes)


def _config_of(model: str, shipped: dict | None) -> Config:
    if shipped:
        return get_config(shipped['config'])
    if is_multi_view(model):
        require_trained(model)
        return multi_view_config(model)
    return pretrained_config(model) if is_shared(model) else get_config(model)


def _contract_of(backbone: object) -> Contract | None:
    """Return the contract of an encoder that starts from a published model, which its config need not repeat."""
    name = backbone.get('type') if isinstance(backbone, dict) else backbone
    published = load_catalogue('checkpoints').get(name)
    return Contract.from_dict(published['contract']) if published else None


def _shipped_attributes(weights: str) -> dict:
    """Return the recorded attributes of a shipped model, or nothing if it has none."""
    path = files('clipgs_plugin') / 'weights' / weights / ATTRIBUTES_FILE
    return json.loads(path.read_text(encoding='utf-8'))['attributes'] if path.is_file() else {}


def attribute_quantiles(cloud: GaussianCloud) -> dict[str, dict[str, float]]:
    """Compute the quantiles over the Gaussians of a prepared object, by attribute and level.

    Args:
        cloud: Object as the model receives it, centred and in the unit sphere. Scales are natural logarithms of
            standard deviations in its radius.
    """
    log_scales = np.sort(cloud.log_scales.double().numpy(), axis=1)
    rgb = cloud.rgb.double().numpy()
    values = {'opacity': cloud.opacities.double().numpy(), 'log scale, longest axis': log_scales[:, 2],
              'log scale, middle axis': log_scales[:, 1], 'log scale, shortest axis': log_scales[:, 0],
              'brightness': rgb.mean(1), 'saturation of colour': np.ptp(rgb, axis=1)}
    return {name: {str(level): float(np.quantile(value, level)) for level in LEVELS}
            for name, value in values.items()}
