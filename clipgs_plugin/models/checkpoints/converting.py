"""Published checkpoints as safetensors that say what they are, and weights trained here as a family saves them."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.models.checkpoints.family import HEAD_WIDTH, heads_of_64
from clipgs_plugin.models.checkpoints.loading import (
    DEFAULT_PARTS,
    FAMILIES,
    ForeignCheckpoint,
    open_point_cloud_checkpoint,
)
from clipgs_plugin.models.parts import part_of

# Under what each family's training code saves the state dict.
WRAPPER = {'uni3d': 'module', 'ulip': 'state_dict', 'openshape': 'state_dict'}
DEFAULT_WRAPPER = 'base_model'


def convert_checkpoint(source: str | Path, target: str | Path, family: str = 'auto', name: str | None = None,
                       trust_pickle: bool = False, finetuned: bool = False) -> ForeignCheckpoint:
    """Write what is used of a published file as safetensors, under its own names, with what it is in the metadata.

    The metadata holds ``family``, ``architecture`` and ``contract`` as JSON, and name and SHA-256 of the source.

    Args:
        source: The published file.
        target: A ``.safetensors`` file; one that is there is replaced.
        family, name, finetuned, trust_pickle: As :func:`open_point_cloud_checkpoint` takes them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The target has another ending, or the source is of no known family.
    """
    from safetensors.torch import save

    source, target = Path(source), Path(target)
    if target.suffix != '.safetensors':
        raise ValueError(f'{target}: expected a name that ends in .safetensors')
    found = open_point_cloud_checkpoint(source, family, name, finetuned, trust_pickle)
    metadata = {
        'format': 'pt',
        'family': found.family.name,
        'architecture': json.dumps(found.architecture._asdict()),
        'contract': json.dumps(found.contract.to_dict()),
        'source': source.name,
        'source_sha256': _sha256(source),
    }
    used = {key: found.state[key].contiguous() for key in found.sources.values()}
    write_whole(target, [save(used, metadata)])
    return found


def export_point_cloud_checkpoint(encoder: nn.Module, path: str | Path, family: str,
                                  parts: Sequence[str] = DEFAULT_PARTS) -> None:
    """Save the point-cloud model inside an encoder as its family's own code does, for that code to load.

    Args:
        encoder: A GSEncoder or PointCloudModel. What only it has, its refinement above all, is left out.
        path: File to write with ``torch.save``.
        family: One of ``FAMILIES``.
        parts: Which parts to save.

    Raises:
        ValueError: The family is unknown, or the encoder has something for which the family has no name.
    """
    if family not in FAMILIES:
        raise ValueError(f'family={family!r}: expected one of {sorted(FAMILIES)}')
    heads, own = getattr(encoder.backbone, 'num_heads', None), encoder.state_dict()
    if heads not in (None, heads_of_64(encoder.backbone.embed_dims)):
        raise ValueError(f'{family} has heads that are {HEAD_WIDTH} wide, this {type(encoder.backbone).__name__} of '
                         f'{encoder.backbone.embed_dims} has num_heads={heads}; no tensor would tell')
    kept = {key: value for key, value in own.items() if part_of(key, encoder.backbone) in parts}
    exported = FAMILIES[family].export(kept)
    lost = len(kept) - len(exported) - sum(key in FAMILIES[family].zeros for key in kept)
    if lost:
        raise ValueError(f'{family} has no names for {lost} of {len(kept)} tensors of this encoder, whose backbone is '
                         f'a {type(encoder.backbone).__name__}')
    content = {f'module.{key}': value for key, value in exported.items()}
    torch.save({WRAPPER.get(family, DEFAULT_WRAPPER): content}, path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
