"""A published checkpoint as the model it was published as."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.loading import (
    ForeignCheckpoint,
    load_point_cloud_weights,
    open_point_cloud_checkpoint,
)
from clipgs_plugin.models.checkpoints.report import LoadReport
from clipgs_plugin.models.parts import PUBLISHED_PARTS
from clipgs_plugin.models.point_cloud_model import PointCloudModel, QueryProjection
from clipgs_plugin.models.tokenizers.point_tokenizer import PointTokenizer


class LoadedCheckpoint(NamedTuple):
    """A model with published weights."""

    model: nn.Module
    report: LoadReport
    contract: Contract


def load_point_cloud_checkpoint(path: str | Path, model: nn.Module | None = None, family: str = 'auto',
                                finetuned: bool = False) -> LoadedCheckpoint:
    """Load a published point-cloud model.

    Args:
        path: The file, or a name of the catalogue (``tools/list_backbones.py`` prints it).
        model: A GSEncoder, whose parts that have the form of the published model take its weights, or a
            PointCloudModel. None builds the point-cloud model itself, whose outputs are the family's own.
        family: Family that the file is held to; ``'auto'`` tells it by the names in the file.
        finetuned: Accept a file that was fine-tuned to classify.

    Returns:
        The model, a model built here in evaluation mode, what became of the tensors, and the input that the model was
        trained with.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, is of no known family, or does not fit the model; the message has the
            report. Nothing is loaded then.
    """
    found = open_point_cloud_checkpoint(path, family, finetuned=finetuned)
    if model is None and found.lost_projection:
        report = LoadReport(found.path, found.family.name, unused=found.unused, missing=found.lost_projection)
        raise ValueError(f'{report}\nThe projection is a part of every model of {found.family.name}; without it the '
                         'rest loads into a GSEncoder')
    if model is None:
        model = build_point_cloud_model(found).eval()
    plain = isinstance(model, PointCloudModel)
    parts = PUBLISHED_PARTS if plain else [part for part in PUBLISHED_PARTS if part != 'projection']
    return LoadedCheckpoint(model, load_point_cloud_weights(model, found, parts=parts, widen=not plain),
                            found.contract)


def build_point_cloud_model(checkpoint: ForeignCheckpoint) -> PointCloudModel:
    """The point-cloud model of a file, with fresh weights."""
    from clipgs_plugin.registry import MODELS

    options = checkpoint.contract.tokenizer_options()
    del options['point_axes']  # it takes clouds in the family's own frame
    options |= checkpoint.architecture.tokenizer | dict(point_attributes=checkpoint.attributes)
    tokenizer = PointTokenizer(**options, missing_color=checkpoint.contract.missing_color)
    backbone = MODELS.build(checkpoint.architecture.backbone)
    projection = dict(checkpoint.architecture.projection or {})
    if projection.pop('type', None) == QueryProjection.__name__:
        return PointCloudModel(tokenizer, backbone, QueryProjection(backbone.embed_dims, **projection))
    return PointCloudModel(tokenizer, backbone, nn.Linear(backbone.out_channels, **projection) if projection else None)
