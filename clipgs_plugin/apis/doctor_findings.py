"""Findings about a splat file, and the registry of the checks that make them."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

GRADES = ('ok', 'note', 'warning', 'error')  # ascending


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: Name of the check.
        grade: One of ``GRADES``: ``'note'`` is good to know, ``'warning'`` changes embeddings, ``'error'`` means that
            the library refuses the file.
        what: Observation, with its amount.
        why: Effect on an embedding; empty if there is none.
        remedy: Option or command that mends it; empty if nothing is to be done.
    """

    check: str
    grade: str
    what: str
    why: str = ''
    remedy: str = ''

    def __post_init__(self) -> None:
        if self.grade not in GRADES:
            raise ValueError(f'grade={self.grade!r}: expected one of {GRADES}')

    def __str__(self) -> str:
        return '; '.join(filter(None, [f'{self.check}: {self.what}', self.why, self.remedy]))


@dataclass(frozen=True)
class Diagnosis:
    """Findings about one object.

    Attributes:
        path: Path of the file, or the name of a cloud.
        findings: One entry a check, in the order of the checks.
        facts: Plain numbers and strings; empty if the file cannot be read.
    """

    path: str
    findings: tuple[Finding, ...]
    facts: dict = field(default_factory=dict)

    @property
    def grade(self) -> str:
        """Worst grade of the findings."""
        return max((finding.grade for finding in self.findings), key=GRADES.index, default='ok')

    def to_dict(self) -> dict:
        """Return plain data for JSON."""
        return dict(path=self.path, grade=self.grade, facts=self.facts,
                    findings=[asdict(finding) for finding in self.findings])


CHECKS: dict[str, Callable] = {}


def check(name: str) -> Callable:
    """Register a check: a function of a Subject and Expectations that returns a tuple, or None if it does not apply.

    The tuple is the grade and the observation, and optionally the effect and the remedy of a :class:`Finding`.

    Args:
        name: Name of the check, unique.
    """
    def register(function: Callable) -> Callable:
        if name in CHECKS:
            raise ValueError(f'check {name!r} is registered twice; give it another name')
        CHECKS[name] = function
        return function
    return register
