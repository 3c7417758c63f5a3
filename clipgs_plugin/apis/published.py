"""Published point-cloud models as models of Gaussians, by their names in the catalogue of checkpoints.

A published model becomes a :class:`GSEncoder` without the refinement branch, which computes the published embedding of
the means and colours of the Gaussians. Its contract decides the preparation of an object and the teacher.
"""
from __future__ import annotations

import warnings
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from clipgs_plugin.apis.configs import get_config
from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.empty import allocate, without_initialisation
from clipgs_plugin.models.checkpoints.load import load_point_cloud_weights
from clipgs_plugin.models.checkpoints.open import ForeignCheckpoint, open_point_cloud_checkpoint
from clipgs_plugin.models.clip_gs import MAX_LOG_SCALE
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

SPLATS = 'clipgs_plugin::_base_/datasets/splats_to_points.py'
RUNTIME = 'clipgs_plugin::_base_/default_runtime.py'
ROUNDING = 1e-2  # of a logarithm that training clamped and the file stores in half precision


def list_published() -> list[str]:
    """List the published models that embed into the space of a teacher, and so answer without training."""
    return [name for name in load_catalogue('checkpoints') if not why_no_answer(name)]


def is_published_name(model: object) -> bool:
    """Check whether a model is named as in the catalogue of checkpoints."""
    return isinstance(model, str) and model in load_catalogue('checkpoints')


def why_no_answer(name: str) -> str:
    """Describe why a published model cannot answer by its name, and the remedy; empty if it can."""
    entry = load_catalogue('checkpoints')[name]
    teacher = entry['contract'].get('teacher')
    train = f"train an encoder that starts from it, GSEncoder(backbone={name!r})"
    if teacher is None:
        return f'{name} is not aligned with a CLIP model, so it cannot compare objects with texts or images; {train}'
    if teacher not in load_catalogue('teachers'):
        return (f'{name} embeds into the space of {teacher}, which open_clip does not have; {train}, towards '
                'another CLIP model')
    return ''


def _require_answer(name: str) -> None:
    reason = why_no_answer(name)
    if reason:
        raise ValueError(reason)


def published_config(name: str, file: str | Path | None = None, logit_scale: float = MAX_LOG_SCALE,
                     options: dict | None = None) -> Config:
    """Return the config of a published model: the encoder, the teacher, and the preparation of splat files.

    It serves the inferencer and ``tools/test.py``.

    Args:
        name: Name in the catalogue.
        file: File of the weights; None finds it by the name when the weights are initialised.
        logit_scale: Natural logarithm of the factor on cosines.
        options: Settings that override the config's, by dotted keys.

    Raises:
        ValueError: The model is not aligned with a model of open_clip.
    """
    _require_answer(name)
    entry = load_catalogue('checkpoints')[name]
    contract = Contract.from_dict(entry['contract'])
    teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=contract.teacher)
    encoder = dict(
        type='clipgs_plugin.GSEncoder', backbone=name, tokenizer=dict(refine=False), embed_dim=contract.embed_dim,
        teacher=contract.teacher,
        init_cfg=dict(type='clipgs_plugin.PointCloudPretrained', checkpoint=str(file or name), name=name))
    if 'projection' in entry['architecture']:
        encoder['projection'] = dict(entry['architecture']['projection'])
    # Settings such as data_root and up, which the base computes with.
    named = {key: value for key, value in (options or {}).items() if '.' not in key and not isinstance(value, dict)}
    cfg = get_config(SPLATS, {'num_points': contract.num_points, **named})
    cfg.merge_from_dict(get_config(RUNTIME).to_dict())
    for part in ('train', 'val'):
        for key in (f'{part}_dataloader', f'{part}_pipeline'):
            cfg.pop(key, None)
    cfg.merge_from_dict(dict(
        model=dict(type='clipgs_plugin.CLIPGS', encoder=encoder, init_logit_scale=float(logit_scale)),
        teacher=teacher, test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='clipgs_plugin.ZeroShotAccuracy', teacher=teacher, templates='objects')))
    cfg.merge_from_dict(options or {})
    return cfg


def load_published(name: str, file: str | Path | None = None, download: bool = False) -> nn.Module:
    """Build a published model with its weights on the CPU; the teacher is not needed.

    Args:
        name: Name in the catalogue.
        file: File to read under the contract of the name; None finds it (:func:`find_file`).
        download: Download the file if it is not found.

    Returns:
        A :class:`CLIPGS` in eval mode with its config as ``cfg`` and its name as ``name``.

    Raises:
        FileNotFoundError: The file is missing; the message tells where to get it and where to put it.
        ValueError: The model is not aligned with a model of open_clip, or the file is not that of the name.
    """
    _require_answer(name)  # before files are looked for
    found = open_point_cloud_checkpoint(name if file is None else file, name=name, download=download)
    path = Path(found.path)
    cfg = published_config(name, path.absolute(), _logit_scale(name, found))
    with without_initialisation():
        model = allocate(MODELS.build({**cfg.model, 'teacher': None}))
    with torch.no_grad():
        model.logit_scale.fill_(cfg.model.init_logit_scale)
    report = load_point_cloud_weights(model.encoder, found, widen=False)
    if report.disagreements:  # the encoder follows the contract, so this is a projection that is not loaded
        raise ValueError(f'{path}: is not the file of {name}: {"; ".join(report.disagreements)}; download '
                         f'{load_catalogue("checkpoints")[name]["file"]} from '
                         f'{load_catalogue("checkpoints")[name]["page"]}')
    model.encoder.load_reports.append(report)
    model.cfg, model.name = cfg, name
    return model.eval()


def _logit_scale(name: str, found: ForeignCheckpoint) -> float:
    """Return the logarithm of the factor on cosines: that of the file, or of 100, the factor of most CLIP models."""
    value = found.logit_scale
    if value is None:
        return MAX_LOG_SCALE
    if not 0 <= value <= MAX_LOG_SCALE + ROUNDING:
        warnings.warn(f'{name}: the file has logit_scale={value:g}, expected a logarithm in [0, {MAX_LOG_SCALE:.3f}]; '
                      'probabilities use the factor 100 instead', stacklevel=2)
        return MAX_LOG_SCALE
    return min(value, MAX_LOG_SCALE)
