"""Weights of published point-cloud models for a GSEncoder."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from clipgs_plugin.models.checkpoints.family import PARTS, Family
from clipgs_plugin.models.checkpoints.point_bert import POINT_BERT
from clipgs_plugin.models.checkpoints.reading import read_checkpoint
from clipgs_plugin.models.checkpoints.uni3d import UNI3D
from clipgs_plugin.registry import WEIGHT_INITIALIZERS
from clipgs_plugin.structures.attributes import num_channels

FAMILIES = {family.name: family for family in (UNI3D, POINT_BERT)}
DEFAULT_PARTS = tuple(part for part in PARTS if part != 'projection')
FIRST_CONV = 'tokenizer.patch_encoder.first_conv.0.weight'
# What the columns of a published first convolution mean, by their number.
FIRST_CONV_ATTRIBUTES = {3: ('xyz',), 6: ('xyz', 'rgb')}


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a checkpoint."""

    path: str
    family: str
    loaded: list[str]    # names in the encoder
    unused: list[str]    # names in the file
    missing: list[str]   # names in the encoder that the file should have
    unplaced: list[str]  # names in the encoder's terms that the file has and the encoder has not
    mismatched: list[str]  # names in the encoder, with both shapes

    def __str__(self) -> str:
        return (f'{self.path} ({self.family}): loaded {len(self.loaded)} tensors, left {len(self.unused)} unused'
                + ''.join(f'; {name} {_some(keys)}' for name, keys in self._faults().items() if keys))

    def _faults(self) -> dict[str, list[str]]:
        return {'missing in the file:': self.missing, 'not in the encoder:': self.unplaced,
                'of another shape:': self.mismatched}

    @property
    def complete(self) -> bool:
        return not any(self._faults().values())


@WEIGHT_INITIALIZERS.register_module()
class PointCloudPretrained:
    """Initialises the patch encoder and the backbone of a GSEncoder from a point-cloud model.

    ``GSEncoder(..., init_cfg=dict(type='PointCloudPretrained', checkpoint='model.pt'))``

    Args:
        checkpoint: Path of the published file.
        family: ``'uni3d'``, ``'point_bert'`` (also ULIP's), or ``'auto'``, which tells by the names in the file.
        parts: Which parts to take: ``'patch_encoder'``, ``'position'``, ``'blocks'``, ``'norm'``, by default all of
            these, and ``'projection'``, which only makes sense for the teacher that the file was trained with.
    """

    def __init__(self, checkpoint: str | Path, family: str = 'auto', parts: Sequence[str] = DEFAULT_PARTS) -> None:
        self.checkpoint = checkpoint
        self.family = family
        self.parts = tuple(parts)

    def __call__(self, module: nn.Module) -> None:
        report = load_point_cloud_weights(module, self.checkpoint, self.family, self.parts)
        print_log(str(report), logger='current')


def load_point_cloud_weights(encoder: nn.Module, checkpoint: str | Path, family: str = 'auto',
                             parts: Sequence[str] = DEFAULT_PARTS) -> LoadReport:
    """Load a published point-cloud model into the parts of a GSEncoder that have its form.

    A first convolution of fewer channels than the encoder's is widened with zeros: the new channels do nothing yet.

    Args:
        encoder: A GSEncoder.
        checkpoint, family, parts: As :class:`PointCloudPretrained` takes them.

    Returns:
        What was loaded and what of the file was not used.

    Raises:
        TypeError: The module is not an encoder of tokenizer and backbone.
        ValueError: The parts or the family are unknown, or the file does not fit: something that the encoder needs
            is missing, is of another shape, or the file has blocks that the encoder has not. Nothing is loaded then.
    """
    if set(parts) - set(PARTS):
        raise ValueError(f'parts={tuple(parts)}: expected some of {PARTS}')
    if getattr(encoder, 'tokenizer', None) is None or not hasattr(encoder, 'backbone'):
        raise TypeError(f'{type(encoder).__name__} has no tokenizer and backbone; PointCloudPretrained belongs into '
                        'the init_cfg of the GSEncoder, as its weights are spread over both')
    state = read_checkpoint(checkpoint)
    kind = detect_family(state, checkpoint) if family == 'auto' else _family(family)
    if kind.prefix(state) is None:
        raise ValueError(f'{checkpoint}: is not of family {kind.name!r}, which has {kind.signature!r}; it begins '
                         f'{_some(list(state))}')
    found, unused = kind.translate(state, parts)
    own = encoder.state_dict()
    if FIRST_CONV in found and FIRST_CONV in own:
        found[FIRST_CONV] = widen_first_conv(found[FIRST_CONV], encoder.tokenizer.point_attributes, checkpoint)
    placed = found.keys() & own.keys()
    report = LoadReport(
        path=str(checkpoint), family=kind.name, unused=unused,
        loaded=[key for key in own if key in placed],
        missing=[key for key in kind.needed(own, parts) if key not in found],
        unplaced=[key for key in found if key not in own],
        mismatched=[f'{key} {tuple(found[key].shape)} for {tuple(own[key].shape)}' for key in own
                    if key in placed and found[key].shape != own[key].shape])
    if not report.complete:
        raise ValueError(f'{report}. Nothing was loaded. Weights of {kind.name} fit a {kind.backbone} of the same '
                         f'size behind a GSTokenizer; this encoder has a {type(encoder.backbone).__name__}')
    with torch.no_grad():
        for key in report.loaded:
            own[key].copy_(found[key])
    return report


def detect_family(state: dict[str, Tensor], path: str | Path) -> Family:
    """The family whose names a checkpoint has."""
    family = next((family for family in FAMILIES.values() if family.prefix(state) is not None), None)
    if family is None:
        raise ValueError(f'{path}: its names are of none of the families {sorted(FAMILIES)}; it begins '
                         f'{_some(list(state))}')
    return family


def widen_first_conv(weight: Tensor, attributes: Iterable[str], path: str | Path) -> Tensor:
    """The columns of a published first convolution at the channels of these attributes, zeros at all others.

    Args:
        weight: (out, 3 or 6, 1), columns xyz or xyz and rgb.
        attributes: Names of what the patch encoder sees.
        path: The file, for the error.

    Returns:
        (out, channels of the attributes, 1)
    """
    attributes = tuple(attributes)
    meant = FIRST_CONV_ATTRIBUTES.get(weight.shape[1])
    if meant is None or not set(meant) <= set(attributes):
        raise ValueError(f'{path}: its patch encoder sees {meant or f"{weight.shape[1]} channels"}, that of the '
                         f'tokenizer {attributes}; set point_attributes of the tokenizer to include what it sees')
    widened = weight.new_zeros(weight.shape[0], num_channels(attributes), *weight.shape[2:])
    columns = dict(zip(meant, weight.split(3, dim=1)))
    offset = 0
    for name in attributes:
        width = num_channels((name,))
        if name in columns:
            widened[:, offset:offset + width] = columns[name]
        offset += width
    return widened


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"family={name!r}: expected 'auto' or one of {sorted(FAMILIES)}")
    return FAMILIES[name]


def _some(keys: list[str], most: int = 4) -> str:
    return ', '.join(keys[:most]) + (f' and {len(keys) - most} more' if len(keys) > most else '')
