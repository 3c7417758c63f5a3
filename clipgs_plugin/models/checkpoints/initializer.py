"""mmengine initialiser that loads published weights into an encoder."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log
from torch import nn

from clipgs_plugin.models.checkpoints.load import load_point_cloud_weights, warn_of_disagreements
from clipgs_plugin.models.checkpoints.open import open_point_cloud_checkpoint
from clipgs_plugin.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class PointCloudPretrained:
    """Initialiser of a GSEncoder's patch encoder, backbone and projection from a point-cloud model.

    ``GSEncoder(..., init_cfg=dict(type='PointCloudPretrained', checkpoint='uni3d-b'))``

    It warns if the tokenizer forms patches differently from the training of the model, or if the projection of the
    model is not loaded.

    Args:
        checkpoint: Path of the published file, or its name in the catalogue (``tools/list_backbones.py``).
        family: Required family of the file; ``'auto'`` detects it.
        parts: Parts to load, out of ``'patch_encoder'``, ``'position'``, ``'blocks'``, ``'norm'`` and
            ``'projection'``; None loads all, the projection only into an encoder of the same width and teacher.
        name: Name of the catalogue entry that the file must match.
        finetuned: Accept a file that was fine-tuned for classification.
    """

    def __init__(self, checkpoint: str | Path, family: str = 'auto', parts: Sequence[str] | None = None,
                 name: str | None = None, finetuned: bool = False) -> None:
        self.checkpoint = checkpoint
        self.family = family
        self.parts = (parts,) if isinstance(parts, str) else parts
        self.name = name
        self.finetuned = finetuned

    def __call__(self, module: nn.Module) -> None:
        found = open_point_cloud_checkpoint(self.checkpoint, self.family, self.name, self.finetuned)
        contract = found.contract
        if 'projection' in (self.parts or ()) and contract.embed_dim not in (None, module.embed_dim):
            raise ValueError(f'{found.path}: embeds into {contract.teacher} of width {contract.embed_dim}, but the '
                             f'encoder has embed_dim={module.embed_dim}; leave out the part \'projection\', or train '
                             'towards the teacher of the file')
        report = load_point_cloud_weights(module, found, parts=self.parts)
        module.load_reports.append(report)
        print_log(str(report), logger='current')
        warn_of_disagreements(report)
