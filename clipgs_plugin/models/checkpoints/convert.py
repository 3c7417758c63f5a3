"""Conversion of published files to safetensors, and export of encoders to the format of a family."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from clipgs_plugin.io.files import sha256_of, write_whole
from clipgs_plugin.models.checkpoints.converted import used_tensors
from clipgs_plugin.models.checkpoints.families import FAMILIES
from clipgs_plugin.models.checkpoints.families.family import HEAD_WIDTH, heads_of_64
from clipgs_plugin.models.checkpoints.open import ForeignCheckpoint, open_point_cloud_checkpoint
from clipgs_plugin.models.parts import PUBLISHED_PARTS, part_of

EXPORTED_PARTS = tuple(part for part in PUBLISHED_PARTS if part != 'projection')  # all that every family names


def convert_checkpoint(source: str | Path, target: str | Path, family: str = 'auto', name: str | None = None,
                       trust_pickle: bool = False, finetuned: bool = False) -> ForeignCheckpoint:
    """Write the used tensors of a published file and its temperature as safetensors, under their original names.

    The metadata holds ``family``, ``architecture`` and ``contract`` as JSON, and the name and SHA-256 of the source.

    Args:
        source: Path of the published file.
        target: Path of the ``.safetensors`` file to write; an existing file is replaced.
        family, name, trust_pickle, finetuned: Arguments of :func:`open_point_cloud_checkpoint`.

    Raises:
        FileNotFoundError: The source does not exist.
        ValueError: The target has another extension, or the source is of no known family.
    """
    from safetensors.torch import save

    source, target = Path(source), Path(target)
    if target.suffix != '.safetensors':
        raise ValueError(f'{target}: expected the extension .safetensors')
    found = open_point_cloud_checkpoint(source, family, name, finetuned, trust_pickle)
    with source.open('rb') as file:
        digest = sha256_of(file)
    used = used_tensors(found.state, found.sources)
    write_whole(target, [save(used, found.metadata | {'source_sha256': digest})])
    return found


def export_point_cloud_checkpoint(encoder: nn.Module, path: str | Path, family: str,
                                  parts: Sequence[str] = EXPORTED_PARTS) -> None:
    """Save the point-cloud model inside an encoder in the format of its family, for the family's own code.

    Args:
        encoder: GSEncoder or PointCloudModel. The parts that only a GSEncoder has, such as its refinement, are left
            out.
        path: File to write with ``torch.save``.
        family: One of ``FAMILIES``.
        parts: Parts to save.

    Raises:
        ValueError: The family is unknown, or it has no name for some tensors of the encoder.
    """
    if family not in FAMILIES:
        raise ValueError(f'family={family!r}: expected one of {sorted(FAMILIES)}')
    kind, backbone = FAMILIES[family], encoder.backbone
    heads = getattr(backbone, 'num_heads', None)
    if heads not in (None, heads_of_64(backbone.embed_dims)):
        raise ValueError(f'{family} has heads of width {HEAD_WIDTH}, but this {type(backbone).__name__} of width '
                         f'{backbone.embed_dims} has num_heads={heads}, which the file cannot record')
    kept = {key: value for key, value in encoder.state_dict().items() if part_of(key, backbone) in parts}
    exported = kind.export(kept)
    lost = len(kept) - len(exported) - sum(key in kind.zeros for key in kept)
    if lost:
        raise ValueError(f'{family} has no names for {lost} of {len(kept)} tensors of this encoder, whose backbone is '
                         f'a {type(backbone).__name__}')
    torch.save({kind.wrapper: {f'module.{key}': value for key, value in exported.items()}}, path)
