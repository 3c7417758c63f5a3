"""The mmengine initialiser that applies published weights, and what it says when a config disagrees with them."""
from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log
from torch import nn

from clipgs_plugin.models.checkpoints.loading import (
    DEFAULT_PARTS,
    load_point_cloud_weights,
    open_point_cloud_checkpoint,
)
from clipgs_plugin.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class PointCloudPretrained:
    """Initialises the patch encoder and the backbone of a GSEncoder from a point-cloud model.

    ``GSEncoder(..., init_cfg=dict(type='PointCloudPretrained', checkpoint='uni3d-b'))``

    Where the tokenizer forms patches otherwise than the model was trained with, it says so and names both sides.

    Args:
        checkpoint: Path of the published file, or its name in the catalogue (``tools/list_backbones.py``).
        family: Family that the file is held to; ``'auto'`` tells it by the names in the file.
        parts: Which parts to take: ``'patch_encoder'``, ``'position'``, ``'blocks'``, ``'norm'``, by default all of
            these, and ``'projection'``, which only makes sense for the teacher that the file was trained with.
        name: The entry of the catalogue that a path is said to be.
        finetuned: Accept a file that was fine-tuned to classify.
    """

    def __init__(self, checkpoint: str | Path, family: str = 'auto', parts: Sequence[str] = DEFAULT_PARTS,
                 name: str | None = None, finetuned: bool = False) -> None:
        self.checkpoint = checkpoint
        self.family = family
        self.parts = (parts,) if isinstance(parts, str) else tuple(parts)
        self.name = name
        self.finetuned = finetuned

    def __call__(self, module: nn.Module) -> None:
        found = open_point_cloud_checkpoint(self.checkpoint, self.family, self.name, self.finetuned)
        if 'projection' in self.parts and found.contract.embed_dim not in (None, module.embed_dim):
            raise ValueError(f'{found.path}: embeds into {found.contract.teacher} of width {found.contract.embed_dim}, '
                             f'the encoder into embed_dim={module.embed_dim}; leave out the part \'projection\', or '
                             'train towards the teacher of the file')
        report = load_point_cloud_weights(module, found, parts=self.parts)
        module.load_reports.append(report)
        print_log(str(report), logger='current')
        for line in report.disagreements:
            print_log(f'{found.path}: {line}', logger='current', level=logging.WARNING)
