"""Stand-in for parts of pytorch3d, an optional package, as its docstrings describe them."""
import sys
import types

import torch


class Pointclouds:
    """Clouds of different sizes with features, from and to lists."""

    def __init__(self, points, normals=None, features=None):
        for values in (normals, features):
            assert values is None or [len(value) for value in values] == [len(cloud) for cloud in points]
        self.points, self.normals, self.features = points, normals, features

    def __len__(self):
        return len(self.points)

    def points_list(self):
        return self.points

    def normals_list(self):
        return self.normals

    def features_list(self):
        return self.features


def ball_query(p1, p2, lengths1=None, lengths2=None, K=500, radius=0.2, return_nn=True):
    """Find the first K points of p2 closer than the radius to each of p1, in float32; pad with -1 and 0."""
    found = torch.full((*p1.shape[:2], K), -1)
    squared = torch.zeros(found.shape)
    limit = torch.tensor(radius, dtype=torch.float32).square()
    for cloud, length in enumerate(lengths2.tolist()):
        distance = (p1[cloud, :, None] - p2[cloud, :length]).square().sum(-1)
        for query, row in enumerate(distance):
            inside = (row < limit).nonzero()[:K, 0]
            found[cloud, query, :len(inside)] = inside
            squared[cloud, query, :len(inside)] = row[inside]
    return squared, found, None


def install(monkeypatch):
    """Let ``import pytorch3d`` find the stand-in during a test."""
    modules = {'pytorch3d': types.ModuleType('pytorch3d'), 'pytorch3d.ops': types.ModuleType('pytorch3d.ops'),
               'pytorch3d.structures': types.ModuleType('pytorch3d.structures')}
    modules['pytorch3d.ops'].ball_query = ball_query
    modules['pytorch3d.structures'].Pointclouds = Pointclouds
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
