"""Report on the loading of a checkpoint."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadReport:
    """Result of loading a checkpoint into an encoder, tensor by tensor.

    Attributes:
        path: Path of the file.
        family: Name of its family.
        loaded: Names in the encoder of the loaded tensors.
        unused: Reasons for the tensors of the file that were not used, by their names in the file.
        missing: Names in the encoder of tensors that the file lacks.
        unplaced: Names, translated for an encoder, of tensors that this encoder lacks.
        mismatched: Tensors with a wrong shape, type or value: the name in the encoder and the fault.
        notes: Other remarks for the reader.
        disagreements: Differences between the encoder and the contract of the model, with both sides.
    """

    path: str
    family: str
    loaded: list[str] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unplaced or self.mismatched)

    def __str__(self) -> str:
        reasons = {}
        for key, reason in self.unused.items():
            reasons.setdefault(reason, []).append(key)
        faults = {'missing in the file': self.missing, 'not in the encoder': self.unplaced,
                  'wrong shape, type or value': self.mismatched}
        return '\n  '.join([
            f'{self.path} ({self.family}): {len(self.loaded)} tensors {"loaded" if self.complete else "match"}, '
            f'{len(self.unused)} unused',
            *(f'{name}: {first_few(keys)}' for name, keys in faults.items() if keys),
            *(f'unused, {reason}: {first_few(keys)}' for reason, keys in reasons.items()),
            *self.notes])


def first_few(names: Iterable[str], count: int = 4) -> str:
    """Join the first names with commas and count the rest."""
    names = list(names)
    return ', '.join(names[:count]) + (f' and {len(names) - count} more' if len(names) > count else '')
