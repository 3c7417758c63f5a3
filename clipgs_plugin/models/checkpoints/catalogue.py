"""Look-ups in the catalogue of published checkpoints: files, contracts and encoder configs by name."""
from __future__ import annotations

import difflib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from torch import nn

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.download import download as download_file
from clipgs_plugin.models.checkpoints.families import Architecture, Family
from clipgs_plugin.models.checkpoints.hub import cached_file, hub_file
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

CHECKPOINT_FOLDER = 'CLIPGS_CHECKPOINTS'  # environment variable


def find_file(checkpoint: str | Path, download: bool = False) -> Path:
    """Find the file of a path, or of a name in the catalogue.

    The file of a name is searched in ``$CLIPGS_CHECKPOINTS``, in ``./checkpoints``, and in the cache of the Hugging
    Face Hub.

    Args:
        checkpoint: Path, or name of the catalogue.
        download: Download the file of a name that is not found.

    Raises:
        FileNotFoundError: No file is found, its weights have not been published, or it cannot be downloaded by name.
        IsADirectoryError: The path is a folder.
        OSError: The download failed.
        ValueError: The downloaded file has another SHA-256 than is known.
    """
    path, catalogue = Path(checkpoint).expanduser(), load_catalogue('checkpoints')
    if path.is_file():
        return path
    if str(checkpoint) not in catalogue:
        if path.is_dir():
            raise IsADirectoryError(f'{path} is a folder; give the path of the file in it')
        close = difflib.get_close_matches(str(checkpoint), catalogue, n=3)
        raise FileNotFoundError(f'{path}: file not found; download the checkpoint and give its path'
                                + (f', or use a name of the catalogue such as {", ".join(close)}' if close else ''))
    name, entry = str(checkpoint), catalogue[str(checkpoint)]
    if entry['file'] is None:
        raise FileNotFoundError(f'{name}: its weights have not been published; see {entry["page"]}')
    folders = [Path(folder) for folder in (os.environ.get(CHECKPOINT_FOLDER), 'checkpoints') if folder]
    for folder in folders:
        for file in _file_names(name, entry, catalogue):
            if (folder / file).is_file():
                return folder / file
    on_hub = hub_file(name)
    cached = cached_file(on_hub) if on_hub else None
    if cached is not None:
        return cached
    if download:
        return download_file(name).path
    by_program = f'run `python tools/download.py {name}`, or ' if on_hub else ''
    raise FileNotFoundError(
        f'{name}: {by_program}download {entry["file"]} from {entry["page"]} and save it under this name or as '
        f'{name}.pt in {" or ".join(map(str, folders))} (${CHECKPOINT_FOLDER} sets another folder), or give its path')


def _file_names(name: str, entry: dict, catalogue: dict[str, dict]) -> list[str]:
    """Return the accepted file names of an entry; its bare file name counts only if no other entry has the same."""
    bare_names = Counter(Path(other['file'] or '').name for other in catalogue.values())
    bare = Path(entry['file']).name
    return [entry['file'], *(f'{name}{suffix}' for suffix in ('.safetensors', '.pt', '.pth')),
            *([bare] if bare_names[bare] == 1 else [])]


def closest_contract(file: str, family: Family, architecture: Architecture, attributes: tuple[str, ...]) -> Contract:
    """Return the contract of the published model that is most similar to a file outside the catalogue.

    Args:
        file: Name of the file, without its folder.
        family: Family of the file.
        architecture: Architecture of the file.
        attributes: Input attributes of the file, empty if unknown.
    """
    def similarity(entry: dict) -> tuple:
        tokenizer, backbone = entry['architecture']['tokenizer'], entry['architecture']['backbone']
        patch_encoder = tokenizer.get('patch_encoder', {}).get('type', 'PatchEncoder')
        return (entry['file'] is not None and Path(entry['file']).name == file,
                tuple(entry['contract'].get('point_attributes', ('xyz',))) == attributes,
                patch_encoder == architecture.tokenizer['patch_encoder']['type'],
                entry['contract'].get('embed_dim') == architecture.embed_dim,
                sum(architecture.backbone.get(key) == value for key, value in backbone.items()))

    entries = [entry for entry in load_catalogue('checkpoints').values() if entry['family'] == family.name]
    contract = Contract.from_dict(max(entries, key=similarity)['contract'])
    if contract.embed_dim != architecture.embed_dim:  # an unknown teacher
        contract = replace(contract, teacher=None, embed_dim=architecture.embed_dim)
    return replace(contract, point_attributes=attributes or contract.point_attributes)


def is_published(backbone: object) -> bool:
    """Check whether the config of a backbone names a checkpoint of the catalogue instead of a registered type.

    Raises:
        ValueError: The name is neither a checkpoint nor a type, or a type is given without its options.
    """
    name = backbone.get('type') if isinstance(backbone, dict) else backbone
    if not isinstance(name, str):
        return False
    catalogue = load_catalogue('checkpoints')
    if name in catalogue:
        return True
    if MODELS.get(name) is None:
        from clipgs_plugin.models import backbones
        close = difflib.get_close_matches(name, [*catalogue, *backbones.__all__], n=3, cutoff=0.4) or catalogue
        raise ValueError(f'backbone={name!r} is neither a published checkpoint nor a registered type; close names are '
                         f'{", ".join(close)} (tools/list_backbones.py lists all)')
    if isinstance(backbone, str):
        raise ValueError(f'backbone={name!r} is a type without its size; write backbone=dict(type={name!r}, ...)')
    return False


def published_encoder(backbone: str | dict, tokenizer: dict | None = None,
                      init_cfg: dict | list[dict] | None = None) -> tuple[dict, dict, dict | list[dict]]:
    """Return the configs of an encoder that starts from a published checkpoint.

    Args:
        backbone: Name of the checkpoint, or ``dict(type=NAME, ...)`` with options of its backbone.
        tokenizer: Options that override those of the contract.
        init_cfg: Initialisation; None loads the weights of the checkpoint.

    Returns:
        Config of the tokenizer, config of the backbone, and initialisation.

    Raises:
        ValueError: The tokenizer is a module instead of a config.
    """
    if isinstance(tokenizer, nn.Module):
        raise ValueError('a published backbone comes with its own tokenizer; leave out the tokenizer or give '
                         f'tokenizer=dict(...) with changes to the contract, not a {type(tokenizer).__name__}')
    options = dict(backbone) if isinstance(backbone, dict) else dict(type=backbone)
    name = options.pop('type')
    entry = load_catalogue('checkpoints')[name]
    tokenizer = {'type': 'clipgs_plugin.GSTokenizer', **Contract.from_dict(entry['contract']).tokenizer_options(),
                 **entry['architecture']['tokenizer'], **(tokenizer or {})}
    init_cfg = init_cfg or dict(type='PointCloudPretrained', checkpoint=name)
    return tokenizer, {**entry['architecture']['backbone'], **options}, init_cfg
