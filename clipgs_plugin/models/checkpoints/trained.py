"""mmengine initialiser that loads an encoder that this library has trained."""
from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from clipgs_plugin.io.safe_load import check_finite
from clipgs_plugin.models.checkpoints.families.family import PROJECTION
from clipgs_plugin.models.checkpoints.reading import read_checkpoint
from clipgs_plugin.models.checkpoints.report import LoadReport
from clipgs_plugin.models.parts import part_of
from clipgs_plugin.registry import WEIGHT_INITIALIZERS
from clipgs_plugin.registry.catalogue import load_catalogue

ENCODER = 'encoder.'
NEW_PARTS = ('lora', 'prompts')  # a tuned encoder may have them where the trained one has none


@WEIGHT_INITIALIZERS.register_module()
class CLIPGSPretrained:
    """Initialiser of a GSEncoder from a model with an encoder of this library, such as a :class:`CLIPGS`.

    ``GSEncoder(..., init_cfg=dict(type='CLIPGSPretrained', checkpoint='work_dirs/run/epoch_15.pth'))``

    The encoders must be equal, except that the new one may lack the projection and may have low-rank updates and
    prompts in addition.

    Args:
        checkpoint: Checkpoint of a training, folder of ``save_pretrained``, or name of a model that ships with weights.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        path = find_weights(self.checkpoint)
        state = {name.removeprefix(ENCODER): tensor for name, tensor in read_checkpoint(path).items()
                 if name.startswith(ENCODER)}
        report = load_encoder(module, state, path)
        module.load_reports.append(report)
        print_log(str(report), logger='current')


def find_weights(checkpoint: str | Path) -> Path:
    """Find the file of the weights of a trained model.

    Raises:
        FileNotFoundError: There is no such file, folder or shipped model.
    """
    shipped = load_catalogue('models')
    if str(checkpoint) in shipped:
        folder = files('clipgs_plugin').joinpath('weights', shipped[str(checkpoint)]['weights'])
        return Path(str(folder)) / 'weights.safetensors'
    path = Path(checkpoint).expanduser()
    path = path / 'model.safetensors' if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; give the checkpoint of a training, a folder of '
                                f'save_pretrained, or one of {", ".join(shipped)}')
    return path


def load_encoder(encoder: nn.Module, state: dict[str, Tensor], path: Path) -> LoadReport:
    """Load the tensors of an encoder, by their names in it, into a GSEncoder.

    Raises:
        ValueError: The encoders differ. Nothing is loaded.
    """
    own = encoder.state_dict()
    projected = any(name.startswith(PROJECTION) for name in own)
    left_out = {name for name in state if name.startswith(PROJECTION) and not projected}
    fresh = {name: part for name in sorted(own.keys() - state.keys())
             if (part := part_of(name, encoder.backbone)) in NEW_PARTS}
    report = LoadReport(
        str(path), 'clipgs',
        loaded=[name for name in own if name in state and state[name].shape == own[name].shape],
        unused={ENCODER + name: 'the encoder has no projection' for name in sorted(left_out)},
        missing=sorted(own.keys() - state.keys() - fresh.keys()),
        unplaced=sorted(state.keys() - own.keys() - left_out),
        mismatched=[f'{name}: {tuple(state[name].shape)} for {tuple(own[name].shape)}' for name in own
                    if name in state and state[name].shape != own[name].shape],
        notes=[f'fresh: {len(fresh)} tensors of {", ".join(sorted(set(fresh.values())))}'] if fresh else [])
    if not report.complete:
        raise ValueError(f'{report}\nNothing was loaded; give the encoder the tokenizer, backbone, embed_dim and lora '
                         'that the checkpoint was trained with')
    check_finite({name: state[name] for name in report.loaded}, path)
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(state[name])
    return report
