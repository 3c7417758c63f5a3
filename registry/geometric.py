"""Components of CLIP-GS in GraphGym's registry; importing this module registers them.

GraphGym reads its config groups when it is imported, so :func:`clipgs_plugin.geometric.graphgym.run` sets them again.
Only programs of GraphGym import this module.

==============  ====================  ==================================================================
kind            key                   selected by
==============  ====================  ==================================================================
config group    ``clipgs``            settings of the components below
loader          ``clipgs``            ``dataset.format: clipgs``; ``dataset.name`` is a folder of objects
node encoder    ``clipgs``            ``dataset.node_encoder_name: clipgs``, for GraphGym's own networks
network         ``clipgs``            ``model.type: clipgs``
loss            ``clipgs``            ``model.loss_fun: clipgs_contrastive``
metric          ``clipgs_recall``     ``custom_metrics: [clipgs_recall]``
metric          ``clipgs_accuracy``   ``custom_metrics: [clipgs_accuracy]``
==============  ====================  ==================================================================
"""
from __future__ import annotations

import torch
import torch_geometric.transforms as T
from torch import Tensor, nn
from torch_geometric.graphgym import register
from torch_geometric.graphgym.config import cfg
from yacs.config import CfgNode

from clipgs_plugin.apis import get_config
from clipgs_plugin.evaluation.functional import cosines, label_ranks, ranks, recall_at_k
from clipgs_plugin.geometric import (
    GaussianData,
    GaussianDataset,
    GaussianEncoder,
    NormalizeGaussians,
    RandomRotateGaussians,
    SampleGaussians,
    knn_graph,
    node_channels,
)
from clipgs_plugin.models.losses import ContrastiveLoss
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures.attributes import attribute_names, linearise, num_channels


@register.register_config('clipgs')
def clipgs_group(cfg: CfgNode) -> None:
    """Add the group ``clipgs`` with its defaults."""
    group = cfg.clipgs = CfgNode()
    group.config = 'clipgs_graphnet-nano_15e_toy-world'  # config of mmengine whose encoder is trained
    group.features = ''         # teacher whose cached features of a triplet set are the targets; '' loads none
    group.gaussians = 512       # Gaussians sampled from an object
    group.rotate = 'y'          # axis of random rotations in training, or 'any'
    group.max_angle = 180.0     # of these rotations, in degrees; 0 leaves objects as they are
    group.hold_out = 0.2        # share of the objects in val and in test, each, if the folder has no splits
    group.logit_scale = 14.3    # inverse temperature of the contrastive loss
    group.attributes = 'paper'  # attributes of the node encoder
    group.k = 12                # neighbours of a Gaussian in the graph of the node encoder
    group.trainer = 'plain'     # loop of run(): 'plain', or 'lightning', which is GraphGym's own


@register.register_loader('clipgs')
def load_clipgs(format: str, name: str, dataset_dir: str) -> GaussianDataset | None:
    """Return the objects of the folder ``name`` with the indices of three splits; None for other formats.

    GraphGym reads the whole dataset's tensors, so it is in memory.
    """
    if format != 'clipgs':
        return None
    count = cfg.clipgs.gaussians
    dataset = GaussianDataset(
        dataset_dir, name, features=cfg.clipgs.features or None, sh_degree=0, pre_transform=NormalizeGaussians(),
        transform=ByPart(T.Compose([SampleGaussians(count), RandomRotateGaussians(cfg.clipgs.rotate,
                                                                                  cfg.clipgs.max_angle)]),
                         SampleGaussians(count, 'fps')))
    split = dataset.get_idx_split()
    if len(split) < 3:
        split = _hold_out(len(dataset), cfg.clipgs.hold_out, name)
    parts = [''] * len(dataset)
    for part, index in split.items():
        for i in index.tolist():
            parts[i] = part
        key = f'{part}_graph_index'  # GraphGym deletes these before it makes a batch
        dataset._data[key], dataset.slices[key] = index, torch.tensor([0, len(index)])
    dataset._data.part, dataset.slices['part'] = parts, torch.arange(len(dataset) + 1)
    dataset._data_list = None  # of objects without the new attributes
    return dataset


class ByPart(T.BaseTransform):
    """Transform of the objects in train, and another of those in val and test; GraphGym has one for all."""

    def __init__(self, train: T.BaseTransform, others: T.BaseTransform) -> None:
        self.train = train
        self.others = others

    def forward(self, data: GaussianData) -> GaussianData:
        return self.train(data) if data.part == 'train' else self.others(data)


def _hold_out(count: int, share: float, name: str) -> dict[str, Tensor]:
    """Return random but fixed splits, with a share of the objects in val and in test."""
    held = max(1, round(share * count))
    if count <= 2 * held:
        raise ValueError(f'{name}: {count} objects are too few for three splits with clipgs.hold_out={share}; add '
                         'objects, or lower it')
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return dict(val=order[:held], test=order[held:2 * held], train=order[2 * held:])


@register.register_node_encoder('clipgs')
class GaussianNodeEncoder(nn.Module):
    """Linear embedding of the Gaussians' attributes, and the graph of nearest Gaussians, for GraphGym's networks."""

    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.attributes = attribute_names(cfg.clipgs.attributes)
        self.k = cfg.clipgs.k
        self.linear = nn.Linear(num_channels(self.attributes), emb_dim)

    def forward(self, batch: GaussianData) -> GaussianData:
        raw = torch.cat([batch.pos, node_channels(batch)], dim=1)
        batch.x = self.linear(linearise(raw, self.attributes))
        batch.edge_index = knn_graph(batch.pos, self.k, batch.batch)
        return batch


@register.register_network('clipgs')
class GaussianNetwork(nn.Module):
    """Encoder of an mmengine config between GraphGym's input and output.

    For ``task_type: classification`` it ends in classes, otherwise in the space of ``text``, the teacher's embeddings
    of the captions.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        options = dict(get_config(cfg.clipgs.config).model.encoder, init_cfg=None)
        self.classify = cfg.dataset.task_type == 'classification'
        if self.classify:
            options['embed_dim'] = dim_out
        self.encoder = GaussianEncoder(MODELS.build(options))

    def forward(self, batch: GaussianData) -> tuple[Tensor, Tensor]:
        if self.classify:
            return self.encoder(batch), batch.y
        if 'text' not in batch:
            raise ValueError(f'{cfg.dataset.name} has no embeddings of captions; name their teacher with '
                             'clipgs.features, or choose dataset.task_type: classification')
        return self.encoder(batch), batch.text


@register.register_loss('clipgs')
def clipgs_loss(pred: Tensor, true: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return contrastive loss and embeddings if ``model.loss_fun`` is ``'clipgs_contrastive'``, otherwise None."""
    if cfg.model.loss_fun != 'clipgs_contrastive':
        return None
    return ContrastiveLoss(gather=False)(pred, true, cfg.clipgs.logit_scale), pred


@register.register_metric('clipgs_recall')
def clipgs_recall(true: list[Tensor], pred: list[Tensor], task_type: str) -> float:
    """Return the share of objects whose own caption is nearest, among those of all objects of the split.

    Equal captions are right answers for each other.
    """
    texts, embeddings = torch.cat(true), torch.cat(pred)
    return recall_at_k(ranks(cosines(embeddings, texts), cosines(texts, texts) > 1 - 1e-6), 1) / 100


@register.register_metric('clipgs_accuracy')
def clipgs_accuracy(true: list[Tensor], pred: list[Tensor], task_type: str) -> float:
    """Return the share of right classes, without scikit-learn, which GraphGym's own metrics need."""
    labels, scores = torch.cat(true), torch.cat(pred)
    if scores.ndim == 1:  # GraphGym has one output for two classes
        return float(((scores > cfg.model.thresh).long() == labels).double().mean())
    return recall_at_k(label_ranks(scores, labels), 1) / 100
