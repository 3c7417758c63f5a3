"""Converted copies of published files, which open faster and without an unpickler.

The copy of ``FOLDER/NAME.pt`` is ``FOLDER/NAME.pt.safetensors``, or lies in a folder of the user's cache if ``FOLDER``
cannot be written. It is tied to its source by size and time of modification, and to the version of this library, since
that decides which tensors are used.
"""
from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.models.checkpoints.reading import LOGIT_SCALE
from clipgs_plugin.version import __version__


class Converted(NamedTuple):
    """Tensors of a converted file, and why others of its source were left out, by their names in the source."""

    state: dict[str, Tensor]
    unused: dict[str, str]


def used_tensors(state: Mapping[str, Tensor], sources: Mapping[str, str]) -> dict[str, Tensor]:
    """Return contiguous copies of the tensors of an encoder and of the learned temperature, by their names in the file.

    Args:
        state: Tensors of the file.
        sources: Names in the file by names in an encoder.
    """
    kept = [*sources.values(), *(key for key in [LOGIT_SCALE] if key in state)]
    # Copies, since safetensors refuses tensors that share memory.
    return {key: state[key].clone(memory_format=torch.contiguous_format) for key in kept}


def read_converted(source: Path) -> Converted | None:
    """Read the converted copy of a file, or return None if there is none of this content and this version."""
    from safetensors import SafetensorError, safe_open
    for path in _places(source):
        try:
            with safe_open(path, 'pt') as file:
                metadata = file.metadata() or {}
                if all(metadata.get(key) == value for key, value in _ties(source).items()):
                    state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                    return Converted(state, json.loads(metadata['unused']))
        except (OSError, SafetensorError):  # absent or damaged; the source is read again
            continue
    return None


def write_converted(source: Path, tensors: Mapping[str, Tensor], unused: Mapping[str, str],
                    metadata: Mapping[str, str]) -> None:
    """Write the converted copy of a file beside it, else into the user's cache; log if neither can be written.

    Args:
        source: Published file.
        tensors: Tensors to write, from :func:`used_tensors`.
        unused: Reasons for the tensors that are left out.
        metadata: Description of the model.
    """
    from safetensors.torch import save
    left_out = {key: why for key, why in unused.items() if key not in tensors}
    content = save(dict(tensors), {**metadata, **_ties(source), 'unused': json.dumps(left_out)})
    reasons = []
    for path in _places(source):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, [content])
            return
        except OSError as error:
            reasons.append(str(error))
    print_log(f'{source}: its faster copy cannot be kept ({"; ".join(reasons)}), so the file is read anew each time',
              logger='current', level=logging.WARNING)


def _places(source: Path) -> tuple[Path, Path]:
    cache = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'clipgs_plugin' / 'converted'
    digest = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16]
    return source.with_name(f'{source.name}.safetensors'), cache / f'{source.stem}-{digest}.safetensors'


def _ties(source: Path) -> dict[str, str]:
    """Return the metadata that ties a copy to its source."""
    found = source.stat()
    return {'source_bytes': str(found.st_size), 'source_mtime_ns': str(found.st_mtime_ns), 'version': __version__}
