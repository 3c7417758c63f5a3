"""Detection of the family of a checkpoint from its tensor names."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from clipgs_plugin.models.checkpoints.families import FAMILIES, Family
from clipgs_plugin.models.checkpoints.report import LoadReport, first_few

OWN_NAMES = ('encoder.tokenizer.', 'tokenizer.patch_encoder.')


def find_family(state: Mapping[str, Tensor], path: str | Path, name: str = 'auto') -> Family:
    """Return the family ``name`` if the file belongs to it, or detect the family.

    Args:
        state: Tensors of the file by name.
        path: Path of the file, for error messages.
        name: One of ``FAMILIES`` or ``'auto'``.

    Raises:
        ValueError: The name is unknown, or the file is of another family, of none or incomplete.
    """
    if name == 'auto':
        return detect_family(state, path)
    if name not in FAMILIES:
        raise ValueError(f"family={name!r}: expected 'auto' or one of {sorted(FAMILIES)}")
    family = FAMILIES[name]
    if family.find_prefix(state) is None:
        if all(other.find_prefix(state) is None for other in FAMILIES.values()):
            _refuse_own(state, path)
            _refuse_incomplete(family, state, path)
        raise ValueError(f'{path}: is not of family {name!r} but of {detect_family(state, path).name!r}')
    return family


def detect_family(state: Mapping[str, Tensor], path: str | Path) -> Family:
    """Return the family whose names a file has.

    Args:
        state: Tensors of the file by name.
        path: Path of the file, for error messages.

    Raises:
        ValueError: The file is of no family, or lacks names that every file of its family has.
    """
    matches = [family for family in FAMILIES.values() if family.find_prefix(state) is not None]
    # Point-MAE and Gaussian-MAE have the same names but different input channels.
    matches = [family for family in matches if _has_known_input(family, state)] or matches
    if matches:
        return matches[0]
    _refuse_own(state, path)
    closest = max(FAMILIES.values(),
                  key=lambda family: (len(_matching_names(family, state)), _count_signature_modules(family, state)))
    _refuse_incomplete(closest, state, path)
    raise ValueError(f'{path}: its names match none of the families {sorted(FAMILIES)}; its first names are '
                     f'{first_few(state)}')


def _refuse_own(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise an error if a file is a checkpoint of this library."""
    if any(key.startswith(OWN_NAMES) for key in state):
        raise ValueError(f'{path}: was trained by this library and has the names of a GSEncoder; to embed with it, '
                         'give its config in place of the published name; to train on, start from it with '
                         "load_from or an init_cfg of type 'Pretrained', or convert its point-cloud model with "
                         'export_point_cloud_checkpoint')


def _has_known_input(family: Family, state: Mapping[str, Tensor]) -> bool:
    weight = state.get(family.source_of(family.first_weight, family.find_prefix(state)))
    return weight is not None and weight.shape[1] in family.attributes


def _matching_names(family: Family, state: Mapping[str, Tensor]) -> set[str]:
    """Return the names, without the best matching prefix, that the family's rules cover.

    The set is empty if the file has a mark of another family.
    """
    starts = tuple(rule.source for rule in family.rules)
    if any(mark in key for mark in family.absent for key in state):
        return set()
    return max(({key.removeprefix(prefix) for key in state
                 if key.startswith(prefix) and key.removeprefix(prefix).startswith(starts)}
                for prefix in family.prefixes), key=len)


def _count_signature_modules(family: Family, state: Mapping[str, Tensor]) -> int:
    """Count the modules of the family's signature of which the file has any tensor."""
    modules = [name.removesuffix('.weight').rpartition('.')[-1] for name in family.signature]
    return sum(any(module in key.split('.') for key in state) for module in modules)


def _refuse_incomplete(family: Family, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise an error if the file has many names of the family but not its whole signature."""
    known = _matching_names(family, state)
    if len(known) > len(state) // 4:
        missing = [name for name in family.signature if name not in known]
        raise ValueError(f'{LoadReport(str(path), family.name, missing=missing)}\nEvery file of {family.name} has '
                         'these tensors; this file is incomplete, download it again')
