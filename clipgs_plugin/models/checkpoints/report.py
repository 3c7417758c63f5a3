"""What became of the tensors of a checkpoint."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a checkpoint.

    Attributes:
        path: The file.
        family: Name of its family.
        loaded: Names in the encoder.
        unused: Names in the file that were not used, and why.
        missing: Names in the encoder that the file should have and has not.
        unplaced: Names in the encoder's terms that the file has and the encoder has not.
        mismatched: Names in the encoder, with both shapes or types, or what is wrong with the values.
        notes: What else a reader should know.
        disagreements: Where the encoder differs from what the model was trained with, naming both sides.
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
                  'of another form': self.mismatched}
        return '\n  '.join([
            f'{self.path} ({self.family}): {len(self.loaded)} tensors {"loaded" if self.complete else "fit"}, '
            f'{len(self.unused)} are not used',
            *(f'{name}: {some(keys)}' for name, keys in faults.items() if keys),
            *(f'not used, {reason}: {some(keys)}' for reason, keys in reasons.items()),
            *self.notes])


def some(keys: Iterable[str], most: int = 4) -> str:
    """The first few of many names."""
    keys = list(keys)
    return ', '.join(keys[:most]) + (f' and {len(keys) - most} more' if len(keys) > most else '')
