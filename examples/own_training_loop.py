"""Train a network of your own on tokens of the GSTokenizer, in a plain PyTorch loop.

    python examples/own_training_loop.py SPLATS --epochs 3

Every file is a class of its own, seen from random sides with random subsets of its Gaussians.
"""
import argparse
import math

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from clipgs_plugin import GaussianBatch, read_gaussians
from clipgs_plugin.io import find_splats
from clipgs_plugin.models import GSTokenizer
from clipgs_plugin.ops.rotations import y_rotation


class Splats(Dataset):
    """Random views of the objects of a folder, each as a GaussianCloud."""

    def __init__(self, folder, num_gaussians=512, repeats=8):
        self.clouds = [read_gaussians(path).with_sh_degree(0) for path in find_splats(folder)]
        self.num_gaussians, self.repeats = num_gaussians, repeats

    def __len__(self):
        return len(self.clouds) * self.repeats

    def __getitem__(self, index):
        label = index % len(self.clouds)
        cloud = self.clouds[label]
        cloud = cloud[torch.randperm(len(cloud))[:self.num_gaussians]]
        return cloud.transform(y_rotation(2 * math.pi * torch.rand(()).item())).normalise(), label


class Network(nn.Module):
    """Transformer over the tokens; GSTokenizer is an nn.Module like any other."""

    def __init__(self, num_classes, width=64):
        super().__init__()
        self.tokenizer = GSTokenizer(num_groups=32, group_size=16, channels=width, refine_widths=(32, 32, 64))
        self.position = nn.Linear(3, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.0)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, num_classes)

    def forward(self, batch):
        features, centers, mask = self.tokenizer(batch)    # (B, G, C), (B, G, 3), (B, G) or None
        mask = torch.ones(features.shape[:2], dtype=torch.bool) if mask is None else mask
        x = self.blocks(features + self.position(centers), src_key_padding_mask=~mask)
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def collate(items):
    clouds, labels = zip(*items)
    return GaussianBatch.from_clouds(clouds), torch.tensor(labels)   # objects of any size in one batch


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('folder', help='folder of splat files')
parser.add_argument('--epochs', type=int, default=10)
args = parser.parse_args()

torch.manual_seed(0)
data = Splats(args.folder)
network = Network(len(data.clouds)).train()
optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
for epoch in range(args.epochs):
    total = 0.0
    for batch, labels in DataLoader(data, batch_size=8, shuffle=True, collate_fn=collate):
        loss = nn.functional.cross_entropy(network(batch), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item() * len(labels)
    print(f'epoch {epoch + 1}: loss {total / len(data):.3f} (chance {math.log(len(data.clouds)):.3f})')
