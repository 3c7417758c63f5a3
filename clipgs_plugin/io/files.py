"""Files that are whole or absent, and clouds made of numpy arrays."""
from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.structures import GaussianCloud


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file under a temporary name and rename it, so that no reader ever sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            for part in parts:
                file.write(part)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's own mode would hide the file from everybody else
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def cloud_from_arrays(means, quats, log_scales, opacity_logits, sh) -> GaussianCloud:
    """A float32 cloud of arrays (N, 3), (N, 4), (N, 3), (N,), (N, K, 3), contiguous and its own."""
    tensor = lambda x: torch.from_numpy(np.array(x, np.float32, order='C'))  # noqa: E731
    return GaussianCloud(tensor(means), tensor(quats), tensor(log_scales), tensor(opacity_logits), tensor(sh))


def arrays_from_cloud(cloud: GaussianCloud) -> dict[str, np.ndarray]:
    """The raw fields by name, float32 on the CPU."""
    return {name: value.detach().to('cpu', torch.float32).numpy() for name, value in cloud.fields()}
