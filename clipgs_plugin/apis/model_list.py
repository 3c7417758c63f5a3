"""List of the models by name, with what a user chooses them by."""
from __future__ import annotations

from pathlib import Path

from clipgs_plugin.apis.configs import list_configs
from clipgs_plugin.apis.models import shipped_weights
from clipgs_plugin.apis.multi_view import is_multi_view
from clipgs_plugin.apis.published import list_published
from clipgs_plugin.apis.sharing import is_shared
from clipgs_plugin.models.checkpoints.catalogue import find_file
from clipgs_plugin.registry.catalogue import load_catalogue


class ModelName(str):
    """Name of a model, a plain string with facts about the model as attributes.

    Attributes:
        family: Family of a published model, ``'clipgs'`` of a model of this package, or None for a config.
        parameters: Number of parameters, or None if unknown.
        teacher: Name of the CLIP model whose space it embeds into, or None for a config.
        licence: Licence of the weights; one that ends in ``(code)`` is that of the code. None for a config.
        file: File of the weights, or None if it is not on this machine. Configs have none.
        is_ready: True if :func:`get_model` builds it with trained weights.
    """

    family: str | None = None
    parameters: int | None = None
    teacher: str | None = None
    licence: str | None = None
    file: Path | None = None

    @property
    def is_ready(self) -> bool:
        return self.file is not None

    def to_dict(self) -> dict:
        """Return plain data for JSON."""
        return dict(name=str(self), family=self.family, parameters=self.parameters, teacher=self.teacher,
                    licence=self.licence, file=None if self.file is None else str(self.file))


class ModelList(list):
    """List of :class:`ModelName` whose representation is a table of the models and a line of the configs."""

    def __repr__(self) -> str:
        rows = [('name', 'parameters', 'teacher', 'licence', 'file'), *(_row(name) for name in self if name.family)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        configs = [str(name) for name in self if not name.family]
        return '\n'.join(lines + (['', f'configs: {", ".join(configs)}'] if configs else []))


def list_models() -> list[str]:
    """List the names for :func:`get_model`: models that ship with weights, published models, then every config.

    The list prints as a table. The files of published models are looked for at each call.
    """
    names = ModelList()
    for name, entry in load_catalogue('models').items():
        names.append(_name(name, family='clipgs', parameters=entry['parameters'], teacher=entry['teacher'],
                           licence=entry['licence'], file=shipped_weights(entry)))
    for name in list_published():
        entry = load_catalogue('checkpoints')[name]
        names.append(_name(name, family=entry['family'], parameters=entry['architecture']['parameters'],
                           teacher=entry['contract']['teacher'], licence=entry['licence'], file=_existing_file(name)))
    names += map(ModelName, list_configs())
    return names


def has_weights(name: str) -> bool:
    """Check whether a name stands for trained weights, which may have to be downloaded, and not for a config."""
    return (name in load_catalogue('models') or name in load_catalogue('checkpoints') or is_multi_view(name)
            or is_shared(name))


def size_text(parameters: int | None) -> str:
    """Write a number of parameters in millions."""
    return '-' if parameters is None else f'{parameters / 1e6:.1f} M'


def _name(name: str, **facts) -> ModelName:
    name = ModelName(name)
    vars(name).update(facts)
    return name


def _existing_file(name: str) -> Path | None:
    try:
        return find_file(name)
    except FileNotFoundError:
        return None


def _row(name: ModelName) -> tuple[str, ...]:
    return (str(name), size_text(name.parameters), name.teacher or '-', name.licence or '-',
            'here' if name.is_ready else 'missing')
