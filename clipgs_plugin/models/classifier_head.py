"""Classification head of the Point-BERT family, and its weights in published fine-tuned files."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin.models.checkpoints.reading import read_checkpoint
from clipgs_plugin.models.quiet_init import QuietInit
from clipgs_plugin.registry import MODELS, WEIGHT_INITIALIZERS

PUBLISHED = 'cls_head_finetune.'


@MODELS.register_module()
class ClassifierHead(QuietInit, BaseModule):
    """Perceptron from features to logits, the head that Point-BERT and its successors are fine-tuned with.

    The default is that of Point-MAE and ReCon: two hidden layers with batch norm. Point-BERT itself has
    ``widths=(256,), norm=False``, and ``widths=()`` is a linear layer. The layers are numbered as in published
    fine-tuned files, so their tensors fit by name.

    Args:
        in_features: D, width of the feature.
        num_classes: Number of classes.
        widths: Widths of the hidden layers.
        norm: Normalise each hidden layer over the batch.
        dropout: Dropout after each hidden layer.
        init_cfg: Initialisation config of mmengine, such as ``dict(type='clipgs_plugin.PublishedHead', ...)``.

    Shapes:
        - input: (B, D)
        - output: (B, num_classes)
    """

    def __init__(self, in_features: int, num_classes: int, widths: Sequence[int] = (256, 256), norm: bool = True,
                 dropout: float = 0.5, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(in_features, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU(),
                       nn.Dropout(dropout)]
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


@WEIGHT_INITIALIZERS.register_module()
class PublishedHead:
    """Initialiser of a :class:`ClassifierHead` from a published file that was fine-tuned for classification.

    Point-BERT, Point-MAE and ReCon name the classifier ``cls_head_finetune.``.

    Args:
        checkpoint: Path of the file.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: ClassifierHead) -> None:
        state = {name.removeprefix(PUBLISHED): tensor for name, tensor in read_checkpoint(self.checkpoint).items()
                 if name.startswith(PUBLISHED)}
        expected = module.layers.state_dict()
        wrong = sorted({name for name in state.keys() | expected.keys() if 'num_batches_tracked' not in name
                        and (name not in state or name not in expected or state[name].shape != expected[name].shape)})
        if wrong:
            found = ', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in state.items()) or 'none'
            raise ValueError(f'{self.checkpoint}: its tensors {PUBLISHED}* are {found}, which do not fit the head in '
                             f'{", ".join(wrong[:4])}; set num_classes, and widths and norm of the ClassifierHead to '
                             'those of the file')
        module.layers.load_state_dict({**expected, **state})
        print_log(f'{self.checkpoint}: the classification head has {len(state)} tensors loaded', logger='current')
