"""Opening of a published checkpoint: read the file, detect its family, translate its tensors for an encoder."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from clipgs_plugin.models.checkpoints.catalogue import closest_contract, find_file
from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.converted import read_converted, used_tensors, write_converted
from clipgs_plugin.models.checkpoints.detect import find_family
from clipgs_plugin.models.checkpoints.families import Architecture, Family, MissingTensorError
from clipgs_plugin.models.checkpoints.families.family import PROJECTION
from clipgs_plugin.models.checkpoints.reading import LOGIT_SCALE, read_checkpoint, read_metadata
from clipgs_plugin.models.checkpoints.report import LoadReport
from clipgs_plugin.registry.catalogue import load_catalogue

FINETUNED = 'cls_head_finetune.'


@dataclass(frozen=True)
class ForeignCheckpoint:
    """Published checkpoint, read and translated for an encoder, but not yet loaded into one.

    Attributes:
        path: Path of the file.
        family: Family of the file.
        prefix: Prefix of the point-cloud model's names in the file.
        state: Tensors as stored, by their names in the file.
        tensors: Tensors in the form of an encoder, by their names in an encoder.
        sources: Names in the file by names in an encoder.
        unused: Reasons why other tensors belong to no part of an encoder, by their names in the file.
        architecture: Sizes of the model.
        contract: Input that the model was trained with.
    """

    path: str
    family: Family
    prefix: str
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]
    sources: dict[str, str]
    unused: dict[str, str]
    architecture: Architecture
    contract: Contract

    @property
    def metadata(self) -> dict[str, str]:
        """Description for the metadata of a converted file."""
        return {'format': 'pt', 'family': self.family.name, 'architecture': json.dumps(self.architecture._asdict()),
                'contract': json.dumps(self.contract.to_dict()), 'source': Path(self.path).name}

    @property
    def attributes(self) -> tuple[str, ...]:
        """Input attributes of the file's patch encoder.

        Raises:
            ValueError: The family has no patch encoder with this number of input channels.
        """
        columns, known = self.tensors[self.family.first_weight].shape[1], self.family.attributes
        if columns not in known:
            raise ValueError(f'{self.path}: its patch encoder has {columns} input channels; those of '
                             f'{self.family.name} have {" or ".join(map(str, known))}')
        return known[columns]

    @property
    def logit_scale(self) -> float | None:
        """Natural logarithm of the factor on cosines in training; None if the file lacks it."""
        return float(self.state[LOGIT_SCALE]) if LOGIT_SCALE in self.state else None

    @property
    def lost_projection(self) -> list[str]:
        """Names in the file of a projection that the family has but this file lacks."""
        family = self.family
        if family.projection_bias is None or self.prefix in family.unprojected or self.architecture.projection:
            return []
        return [rule.source for rule in family.whole_rules(self.prefix) if rule.target.startswith(PROJECTION)]


def open_point_cloud_checkpoint(checkpoint: str | Path, family: str = 'auto', name: str | None = None,
                                finetuned: bool = False, trust_pickle: bool = False,
                                download: bool = False) -> ForeignCheckpoint:
    """Read a published file, detect its family, and translate its tensors for an encoder.

    The first opening of the file that :func:`find_file` finds for ``name`` writes the used tensors as safetensors
    beside it, and later ones read this copy while the file remains unchanged. Other files are read as they are.

    Args:
        checkpoint: Path of the file, or a name of the catalogue, whose file :func:`find_file` searches.
        family: Required family, one of ``FAMILIES``; ``'auto'`` detects it.
        name: Name of the catalogue entry that the file must match.
        finetuned: Accept a file that was fine-tuned for classification.
        trust_pickle: Execute the code in the file if it holds any. Use it only for files from a trusted origin.
        download: Download the file of a name that is not found.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The download failed.
        ValueError: The file cannot be read, is of no known family, or does not match ``family`` or ``name``.
    """
    catalogue = load_catalogue('checkpoints')
    if name is None and str(checkpoint) in catalogue:
        name = str(checkpoint)
    elif name is not None and name not in catalogue:
        raise ValueError(f'name={name!r}: not in the catalogue of checkpoints; expected one of '
                         f'{", ".join(sorted(catalogue))}')
    if name is not None and family == 'auto':
        family = catalogue[name]['family']
    path = find_file(checkpoint, download)
    keeps_copy = not trust_pickle and path.suffix != '.safetensors' and _stands_for(path, name)
    converted = read_converted(path) if keeps_copy else None
    state = read_checkpoint(path, trust_pickle) if converted is None else converted.state
    kind = find_family(state, path, family)
    if not finetuned and any(FINETUNED in key for key in state):
        raise ValueError(f'{path}: was fine-tuned for classification (it has {FINETUNED}*), but a pre-trained file of '
                         f'{kind.name} was expected; give that file, or accept this one with finetuned=True or '
                         '--finetuned')
    prefix = kind.find_prefix(state)
    tensors, sources, unused = kind.translate(state, prefix)
    unused |= converted.unused if converted else {}
    architecture = _read_architecture(kind, prefix, tensors, unused, path)
    if architecture.projection is None:
        for key in [key for key in tensors if key.startswith(PROJECTION)]:
            del tensors[key]
            unused[sources.pop(key)] = 'projection towards one of several teachers with different spaces'
    found = ForeignCheckpoint(str(path), kind, prefix, state, tensors, sources, unused, architecture,
                              _find_contract(path, name, kind, architecture, tensors))
    if name is not None:
        _check_entry(found, name, catalogue[name])
    if keeps_copy and converted is None and not any(FINETUNED in key for key in state):
        write_converted(path, used_tensors(state, sources), unused, found.metadata)
    return found


def _stands_for(path: Path, name: str | None) -> bool:
    """Check whether a file is the one that is found for a name of the catalogue."""
    try:
        return name is not None and path.samefile(find_file(name))
    except FileNotFoundError:
        return False


def _read_architecture(family: Family, prefix: str, tensors: Mapping[str, Tensor], unused: dict[str, str],
                       path: Path) -> Architecture:
    """Read the sizes of a model from its tensors, with errors that name the file."""
    try:
        return family.architecture(tensors)
    except MissingTensorError as error:
        report = LoadReport(str(path), family.name, unused=unused, missing=[family.source_of(error.name, prefix)])
        raise ValueError(f'{report}\nThis tensor determines the size of the model; the file is incomplete, download it '
                         'again') from error
    except ValueError as error:
        raise ValueError(f'{path}: is of family {family.name!r} but {error}') from error


def _find_contract(path: Path, name: str | None, family: Family, architecture: Architecture,
                   tensors: Mapping[str, Tensor]) -> Contract:
    """Return the contract from the file's metadata, its catalogue entry, or the most similar published model."""
    metadata = read_metadata(path)
    if 'contract' in metadata:
        return Contract.from_dict(json.loads(metadata['contract']))
    if name is not None:
        return Contract.from_dict(load_catalogue('checkpoints')[name]['contract'])
    attributes = family.attributes.get(tensors[family.first_weight].shape[1], ())
    return closest_contract(path.name, family, architecture, attributes)


def _check_entry(found: ForeignCheckpoint, name: str, entry: dict) -> None:
    """Raise an error if a file differs from its catalogue entry, with both sides."""
    contract, backbone = Contract.from_dict(entry['contract']), found.architecture.backbone
    sides = [('input attributes', found.attributes, contract.point_attributes)]
    if found.architecture.embed_dim is not None:
        sides.append(('width of the embedding', found.architecture.embed_dim, contract.embed_dim))
    sides += [(f'{key} of the backbone', backbone[key], value)
              for key, value in entry['architecture']['backbone'].items() if key in backbone]
    wrong = [f'{what}: {here} in the file, {there} published' for what, here, there in sides if here != there]
    if wrong:
        raise ValueError(f'{found.path}: is not {name}; {"; ".join(wrong)}. Download the right file from '
                         f'{entry["page"]}')
