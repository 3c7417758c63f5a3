"""Small indexes in folders, with vectors in clusters."""
import torch
from torch.nn.functional import normalize

from clipgs_plugin.search import IndexCard, IndexWriter

CATEGORIES = ('chair', 'table', None)


def clustered(n, width=8, clusters=20, seed=0):
    """Unit vectors (n, width) of random clusters, which are the same for every seed."""
    centers = torch.randn(clusters, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed + 1)
    chosen = centers[torch.randint(clusters, (n,), generator=generator)]
    return normalize(chosen + 0.4 * torch.randn(n, width, generator=generator), dim=-1)


def write_rows(folder, vectors, first=0, rows_per_shard=8192):
    """Append rows /objects/0000.ply and so on, whose categories take turns."""
    card = IndexCard('clipgs_toy', vectors.shape[1])
    with IndexWriter(folder, card, rows_per_shard, flush_rows=rows_per_shard) as index:
        for i, vector in enumerate(vectors, first):
            index.add(f'/objects/{i:04d}.ply', vector, size=0, mtime_ns=0, gaussians=i, sh_degree=i % 4,
                      category=CATEGORIES[i % 3])
