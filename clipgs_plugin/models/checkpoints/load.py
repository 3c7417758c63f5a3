"""Loading of a published checkpoint into an encoder or into the model of its family."""
from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.empty import allocate, without_initialisation
from clipgs_plugin.models.checkpoints.families.family import HEAD_WIDTH, PATCH_ENCODER
from clipgs_plugin.models.checkpoints.open import ForeignCheckpoint, open_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints.report import LoadReport
from clipgs_plugin.models.parts import PUBLISHED_PARTS, part_of
from clipgs_plugin.models.point_cloud_model import PointCloudModel
from clipgs_plugin.models.query_projection import QueryProjection
from clipgs_plugin.models.tokenizers.point_tokenizer import PointTokenizer
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures.attributes import num_channels

# Counter of batch norms, used only for cumulative averages. Old files lack it.
COUNTER = 'num_batches_tracked'


class LoadedCheckpoint(NamedTuple):
    """Model with published weights, its report and its input contract."""

    model: nn.Module
    report: LoadReport
    contract: Contract


def load_point_cloud_checkpoint(path: str | Path, model: nn.Module | None = None, family: str = 'auto',
                                finetuned: bool = False, download: bool = False) -> LoadedCheckpoint:
    """Load a published point-cloud model.

    Args:
        path: Path of the file, or a name of the catalogue (listed by ``tools/list_backbones.py``).
        model: GSEncoder or PointCloudModel that receives the weights. A GSEncoder receives the weights of the parts it
            shares with the published model, as in :func:`load_point_cloud_weights`; differences are logged as warnings.
            None builds the published model itself, whose outputs are the family's.
        family: Required family of the file; ``'auto'`` detects it.
        finetuned: Accept a file that was fine-tuned for classification.
        download: Download the file of a name that is not found, from the Hugging Face Hub into its cache.

    Returns:
        The model (in evaluation mode if it is built here), the report and the input contract.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The download failed.
        ValueError: The file cannot be read, is of no known family, or does not fit the model. The message contains the
            report, and nothing is loaded.
    """
    found = open_point_cloud_checkpoint(path, family, finetuned=finetuned, download=download)
    if model is None and found.lost_projection:
        report = LoadReport(found.path, found.family.name, unused=found.unused, missing=found.lost_projection)
        raise ValueError(f'{report}\nEvery model of {found.family.name} has a projection; without it, load the other '
                         'parts into a GSEncoder')
    if model is None:
        with without_initialisation():  # every parameter is loaded, or an error names those that are missing
            model = build_point_cloud_model(found)
        allocate(model).eval()
    report = load_point_cloud_weights(model, found, widen=not isinstance(model, PointCloudModel))
    warn_of_disagreements(report)
    return LoadedCheckpoint(model, report, found.contract)


def warn_of_disagreements(report: LoadReport) -> None:
    """Log the differences between an encoder and the contract of its weights as warnings."""
    for line in report.disagreements:
        print_log(f'{report.path}: {line}', logger='current', level=logging.WARNING)


def build_point_cloud_model(checkpoint: ForeignCheckpoint) -> PointCloudModel:
    """Build the point-cloud model of a file, with new weights."""
    options = checkpoint.contract.tokenizer_options()
    del options['point_axes']  # its input is in the family's own frame
    options |= checkpoint.architecture.tokenizer | dict(point_attributes=checkpoint.attributes)
    tokenizer = PointTokenizer(**options, missing_color=checkpoint.contract.missing_color)
    backbone = MODELS.build(checkpoint.architecture.backbone)
    projection = dict(checkpoint.architecture.projection or {})
    if projection.pop('type', None) == QueryProjection.__name__:
        return PointCloudModel(tokenizer, backbone, QueryProjection(backbone.embed_dims, **projection))
    return PointCloudModel(tokenizer, backbone, nn.Linear(backbone.out_channels, **projection) if projection else None)


def load_point_cloud_weights(
    encoder: nn.Module,
    checkpoint: str | Path | ForeignCheckpoint,
    family: str = 'auto',
    parts: Sequence[str] | None = None,
    name: str | None = None,
    finetuned: bool = False,
    widen: bool = True,
) -> LoadReport:
    """Load the weights of a published point-cloud model into some parts of an encoder.

    If the encoder's first layer has more input channels, its weight is widened with zeros, so the additional channels
    have no effect at first.

    Args:
        encoder: A GSEncoder or a PointCloudModel.
        checkpoint: Path, name of the catalogue, or opened checkpoint.
        family, name, finetuned: Arguments of :func:`open_point_cloud_checkpoint`, unused for an opened checkpoint.
        parts: Parts to load, of ``PUBLISHED_PARTS``. The other parts of the file need not fit. None loads all parts,
            but into an encoder without this projection, or for another teacher, all except the projection. The
            disagreements of the report name the reason.
        widen: Allow widening of the first layer.

    Returns:
        Report of the loaded and unused tensors, and of differences between the encoder and the contract.

    Raises:
        TypeError: The module has no tokenizer or no backbone.
        ValueError: The parts or the family are unknown, or the file does not fit the encoder. Nothing is loaded.
    """
    chosen = PUBLISHED_PARTS if parts is None else (parts,) if isinstance(parts, str) else tuple(parts)
    if not chosen or set(chosen) - set(PUBLISHED_PARTS):
        raise ValueError(f'parts={parts}: expected some of {PUBLISHED_PARTS}')
    if getattr(encoder, 'tokenizer', None) is None or not hasattr(encoder, 'backbone'):
        raise TypeError('weights of a point-cloud model need an encoder with a tokenizer and a backbone, such as a '
                        f'GSEncoder or a PointCloudModel, got a {type(encoder).__name__}; in a config, put '
                        'PointCloudPretrained into the init_cfg of the GSEncoder')
    if not isinstance(checkpoint, ForeignCheckpoint):
        checkpoint = open_point_cloud_checkpoint(checkpoint, family, name, finetuned)
    unfit = why_unfit(encoder, checkpoint) if parts is None and not isinstance(encoder, PointCloudModel) else ''
    parts = tuple(part for part in chosen if not (unfit and part == 'projection'))
    if 'blocks' in parts:
        _check_backbone(encoder.backbone, checkpoint)
    tensors = {key: value for key, value in checkpoint.tensors.items() if _part(key, encoder) in parts}
    notes = _fit_first_layer(tensors, encoder, checkpoint, widen) if 'patch_encoder' in parts else []
    if 'projection' in parts and getattr(encoder, 'teacher', '') is None:
        notes.append(f'the projection embeds into {checkpoint.contract.teacher or "the space of an unknown teacher"}; '
                     'the encoder names no teacher')
    report = _compare(tensors, encoder, checkpoint, parts, notes, unfit)
    if not report.complete:
        kind, architecture = checkpoint.family, checkpoint.architecture
        raise ValueError(f'{report}\nNothing was loaded. Weights of {kind.name} fit a {kind.backbone} of the same size '
                         f'behind its patch encoder; this file has {architecture.backbone} behind '
                         f'{architecture.tokenizer}, the encoder has a {type(encoder.backbone).__name__}')
    own = encoder.state_dict()
    with torch.no_grad():
        for key in report.loaded:
            own[key].copy_(tensors[key])
    return report


def _check_backbone(backbone: nn.Module, checkpoint: ForeignCheckpoint) -> None:
    """Refuse blocks with another computation or number of heads, which the shapes of the tensors do not reveal."""
    kind, published = checkpoint.family, checkpoint.architecture.backbone
    if not isinstance(backbone, tuple(MODELS.get(name) for name in (kind.backbone, *kind.same_layers))):
        raise ValueError(f'{checkpoint.path}: weights of {kind.name} fit a {kind.backbone} of the same size, but this '
                         f'encoder has a {type(backbone).__name__}; set backbone=dict(type={kind.backbone!r}, ...)')
    heads = getattr(backbone, 'num_heads', None)
    if heads != published.get('num_heads', heads):
        raise ValueError(f'{checkpoint.path}: has {published["num_heads"]} heads of width {HEAD_WIDTH}, as all of '
                         f'{kind.name}, but the {type(backbone).__name__} has num_heads={heads}; set '
                         f'num_heads={published["num_heads"]}')


def why_unfit(encoder: nn.Module, checkpoint: ForeignCheckpoint) -> str:
    """Describe why the projection of a file does not fit an encoder; empty if it fits."""
    published, own = checkpoint.architecture.projection, getattr(encoder, 'projection', None)
    space = checkpoint.contract.other_space(encoder)
    if space:
        return space
    if checkpoint.lost_projection:
        return f'lacks its projection {", ".join(checkpoint.lost_projection)}'
    fitting = nn.Identity if published is None else QueryProjection if 'type' in published else nn.Linear
    if isinstance(own, fitting):
        return ''
    if published is None:
        return 'has no projection into a CLIP space'
    if 'type' in published:
        return f'has a {published["type"]}, which projects queries instead of the pooled feature'
    return f'has a linear projection, but the encoder has a {type(own).__name__}'


def _part(key: str, encoder: nn.Module) -> str:
    """Return the part of a translated tensor, which may be absent from the encoder."""
    try:
        return part_of(key, encoder.backbone)
    except ValueError:  # the encoder has another backbone and loads only the patch encoder
        return 'patch_encoder' if key.startswith(PATCH_ENCODER) else 'blocks'


def _fit_first_layer(tensors: dict[str, Tensor], encoder: nn.Module, checkpoint: ForeignCheckpoint,
                     widen: bool) -> list[str]:
    """Widen the first layer in ``tensors`` to the input of the encoder, and return notes for the report."""
    key = checkpoint.family.first_weight
    stored, wanted = checkpoint.attributes, encoder.tokenizer.point_attributes
    if stored == wanted or key not in encoder.state_dict():
        return []
    if not widen:
        raise ValueError(f'{checkpoint.path}: has input {stored}, but the model has input {wanted}; they are different '
                         f'models of {checkpoint.family.name}, so load another file or build another model')
    if not set(stored) <= set(wanted):
        raise ValueError(f'{checkpoint.path}: its patch encoder has input {stored}, but the tokenizer has '
                         f'{tuple(wanted)}; set point_attributes of the tokenizer to include all of the former')
    tensors[key] = widen_columns(tensors[key], stored, wanted)
    return [f'widened from {", ".join(stored)} to {", ".join(wanted)}: the weights of the new channels are zero']


def widen_columns(weight: Tensor, stored: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Rearrange the input channels of a weight for other attributes, with zeros for new ones.

    Args:
        weight: Weight with the channels of ``stored``, (out, in, ...).
        stored: Attributes of the weight, in order.
        wanted: Attributes of the result, in order, including all of ``stored``.

    Returns:
        Weight with the channels of ``wanted``, (out, in, ...).
    """
    columns = dict(zip(stored, weight.split([num_channels((name,)) for name in stored], dim=1)))
    return torch.cat([columns[name] if name in columns
                      else weight.new_zeros(weight.shape[0], num_channels((name,)), *weight.shape[2:])
                      for name in wanted], dim=1)


def _compare(tensors: dict[str, Tensor], encoder: nn.Module, checkpoint: ForeignCheckpoint, parts: Sequence[str],
             notes: list[str], unfit: str) -> LoadReport:
    """Compare the tensors to load with the encoder, after adding the family's zeros to them.

    ``unfit`` is the reason to leave out the projection, or empty.
    """
    own = encoder.state_dict()
    wanted = [key for key in own if part_of(key, encoder.backbone) in parts]
    tensors.update((key, torch.zeros_like(own[key])) for key in checkpoint.family.zeros
                   if key in wanted and key not in tensors)
    unrequested = {key: _part(key, encoder) for key in checkpoint.sources if key not in tensors}
    unused = {checkpoint.sources[key]: f'the file {unfit}' if unfit and part == 'projection'
              else f'part {part!r} was not requested' for key, part in unrequested.items()}
    disagreements = [line for line in checkpoint.contract.disagreements(encoder) if line != unfit]
    if unfit:
        disagreements.append(f'{unfit}; the projection of the encoder stays random until it is trained')
    faults = {key: fault for key in wanted if key in tensors and (fault := _fault(key, tensors[key], own[key]))}
    return LoadReport(
        path=checkpoint.path, family=checkpoint.family.name, unused=checkpoint.unused | unused, notes=notes,
        disagreements=disagreements,
        loaded=[key for key in wanted if key in tensors],
        missing=[key for key in wanted if key not in tensors and not key.endswith(COUNTER)],
        unplaced=[key for key in tensors if key not in own],
        mismatched=[f'{key} {fault}' for key, fault in faults.items()])


def _fault(key: str, stored: Tensor, own: Tensor) -> str:
    """Describe why a tensor does not fit, or return an empty string."""
    if stored.shape != own.shape:
        return f'{tuple(stored.shape)} instead of {tuple(own.shape)}'
    if stored.is_floating_point() != own.is_floating_point() and not key.endswith(COUNTER):
        return f'{stored.dtype} instead of {own.dtype}'
    return '' if bool(stored.isfinite().all()) else 'has NaN or infinite values'
