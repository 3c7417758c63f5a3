"""Train a graph network on real splats in a plain torch-geometric loop.

    python examples/pyg_training.py SPLATS --epochs 15

SPLATS holds splat files in any format. The network learns to tell the objects apart, from one half of the Gaussians of
each, turned at random. It is tested on the other half, turned at random too.
"""
import argparse
import tempfile

import torch
import torch.nn.functional as F
import torch_geometric.transforms as T
from torch_geometric import seed_everything
from torch_geometric.loader import DataLoader

from clipgs_plugin.geometric import (
    GaussianDataset,
    GaussianEncoder,
    GaussianGraphNet,
    NormalizeGaussians,
    RandomRotateGaussians,
    SampleGaussians,
)
from clipgs_plugin.models import GSEncoder


def halves(data):
    """Split the Gaussians of an object into two random halves."""
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))
    return data.subgraph(order[::2]), data.subgraph(order[1::2])


@torch.no_grad()
def accuracy(model, loader):
    model.eval()
    return sum(int((model(batch).argmax(1) == batch.y).sum()) for batch in loader) / len(loader.dataset)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='folder of splat files')
    parser.add_argument('--epochs', type=int, default=15)
    parser.add_argument('--gaussians', type=int, default=512, help='Gaussians sampled from an object')
    args = parser.parse_args(argv)
    seed_everything(0)

    with tempfile.TemporaryDirectory() as root:
        objects = list(GaussianDataset(root, args.folder, sh_degree=0, pre_transform=NormalizeGaussians(),
                                       pre_filter=lambda data: data.num_nodes >= 1000))
    names = sorted({data.uid.split('.')[0] for data in objects})  # camera.ply and camera.spz are one object
    for data in objects:
        data.y = torch.tensor([names.index(data.uid.split('.')[0])])
    transform = T.Compose([SampleGaussians(args.gaussians), RandomRotateGaussians('any')])
    train, test = ([transform(half) for half in part for _ in range(8)]
                   for part in zip(*map(halves, objects)))
    print(f'{len(objects)} files of {len(names)} objects; {transform}')

    model = GaussianEncoder(GSEncoder(backbone=GaussianGraphNet(k=8, widths=(32, 32), embed_dims=64),
                                      embed_dim=len(names)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loader = DataLoader(train, batch_size=16, shuffle=True)
    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        for batch in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch), batch.y)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * batch.num_graphs
        if epoch in (1, args.epochs) or epoch % 5 == 0:
            score = accuracy(model, DataLoader(test, batch_size=16))
            print(f'epoch {epoch}: loss {total / len(train):.3f}, test accuracy {score:.2f}')
    return score


if __name__ == '__main__':
    main()
