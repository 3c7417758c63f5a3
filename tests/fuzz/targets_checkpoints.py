"""Readers of checkpoints: training runs, published weights, safetensors, weights of a model, queries."""
import io
import zipfile
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from harness import Target
from mutations import damage
from PIL import Image
from safetensors.torch import save_file

from clipgs_plugin.engine.launch import load_from_checked_file
from clipgs_plugin.io.images import read_image
from clipgs_plugin.io.safe_load import check_finite
from clipgs_plugin.models.checkpoints import read_checkpoint
from clipgs_plugin.models.checkpoints.reading import read_metadata


def state() -> dict[str, torch.Tensor]:
    return {'encoder.weight': torch.arange(12.0).reshape(3, 4), 'encoder.bias': torch.ones(3).half(),
            'steps': torch.tensor(5)}


def training(folder: Path) -> Path:
    """Write what a run of plain mmengine saves."""
    from mmengine.logging import HistoryBuffer
    hub = dict(log_scalars={'loss': HistoryBuffer([1.0], [1])}, runtime_info={'best': np.float64(0.5)},
               resumed_keys={'best': True})
    optimizer = dict(state={0: dict(step=torch.tensor(3.0), exp_avg=torch.zeros(3, 4))}, param_groups=[dict(lr=0.1)])
    torch.save(dict(state_dict=state(), meta=dict(epoch=1, iter=4, seed=0), message_hub=hub, optimizer=optimizer),
               folder / 'epoch_1.pth')
    return folder / 'epoch_1.pth'


def published(folder: Path, legacy: bool) -> Path:
    torch.save({'base_model': {f'module.{key}': value for key, value in state().items()}}, folder / 'model.pth',
               _use_new_zipfile_serialization=not legacy)
    return folder / 'model.pth'


def tensors(folder: Path) -> Path:
    save_file(state(), folder / 'weights.safetensors', {'family': 'point_bert'})
    return folder / 'weights.safetensors'


def picture(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / 'query.png')
    return folder / 'query.png'


def damage_pickle(content: bytes, rng: Random) -> bytes:
    """Damage the pickle in an archive of torch.save, and build the archive around it with right checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for name, member in members.items():
            archive.writestr(name, damage(member, rng) if name.endswith('data.pkl') else member)
    return out.getvalue()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read weights as a model would take them."""
    found = read_checkpoint(path)
    read_metadata(path)
    check_finite(found, path)
    return found


def read_training(path: Path) -> dict:
    return load_from_checked_file(str(path), 'cpu')


def unsound_weights(found: dict) -> str | None:
    bad = [key for key, value in found.items() if not isinstance(key, str) or not isinstance(value, torch.Tensor)
           or (value.is_floating_point() and not value.isfinite().all())]
    return f'weights {bad!r:.200}' if bad else None


def unsound_training(found: object) -> str | None:
    state = found.get('state_dict', found) if isinstance(found, dict) else {}
    values = state.values() if isinstance(state, dict) else ()
    bad = [value for value in values
           if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all()]
    return f'weights {bad!r:.200}' if bad else None


TARGETS = [
    Target('checkpoint-training', training, read_training, unsound_training, (damage_pickle,)),
    Target('checkpoint-published', partial(published, legacy=False), read_weights, unsound_weights, (damage_pickle,)),
    Target('checkpoint-legacy', partial(published, legacy=True), read_weights, unsound_weights),
    Target('checkpoint-safetensors', tensors, read_weights, unsound_weights),
    Target('query-image', picture, read_image),
]
