"""The serialised transformer as loops over rows, windows and heads, in float64."""
import math
from statistics import NormalDist

import torch

from clipgs_plugin import GaussianCloud, ops
from clipgs_plugin.structures.attributes import linearise, pack

BITS = 10


def morton(x, y, z, bits=BITS):
    return int(''.join(a + b + c for a, b, c in zip(*(format(v, f'0{bits}b') for v in (x, y, z)))), 2)


def key(cell, order, bits):
    """Return the key of a cell; the tests of ops.ordering have the definition of Hilbert's curve."""
    x, y, z = (cell[1], cell[0], cell[2]) if order.endswith('-trans') else cell
    if order.startswith('z'):
        return morton(x, y, z, bits)
    return int(ops.cell_keys(torch.tensor([[x, y, z]]), 'hilbert', bits))


class Loops:
    """Features of a list of objects.

    Args:
        module: SerializedTransformer.
        training: Use the batch statistics of all rows of all objects in place of the running ones.
    """

    def __init__(self, module, training=False):
        self.w = {name: value.double() for name, value in module.state_dict().items()}
        self.module = module
        self.training = training

    def linear(self, x, name):
        return x @ self.w[f'{name}.weight'].T + self.w.get(f'{name}.bias', 0)

    def layer_norm(self, x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * self.w[f'{name}.weight'] + self.w[f'{name}.bias']

    def batch_norm(self, objects, name):
        rows = torch.cat(objects)
        mean, var = (rows.mean(0), rows.var(0, correction=0)) if self.training else (
            self.w[f'{name}.running_mean'], self.w[f'{name}.running_var'])
        return [gelu((x - mean) / (var + 1e-5).sqrt() * self.w[f'{name}.weight'] + self.w[f'{name}.bias'])
                for x in objects]

    def __call__(self, clouds):
        module = self.module
        places, cells, features = [], [], []
        for cloud in clouds:
            cloud = GaussianCloud(**{name: getattr(cloud, name).double() for name in
                                     ('means', 'quats', 'log_scales', 'opacity_logits', 'sh')})
            low = cloud.means.amin(0)
            edge = float((cloud.means.amax(0) - low).max()) or 1.0
            places.append((cloud.means - low) / edge)
            cells.append([tuple(min(int(v * 2 ** BITS), 2 ** BITS - 1) for v in row) for row in places[-1].tolist()])
            features.append(self.linear(linearise(pack(cloud), module.attributes, module.scale), 'embed.0'))
        features = self.batch_norm(features, 'embed.1')
        bits, number = BITS, 0
        for stage, depth in enumerate(module.depths):
            if stage:
                pooled = [self.pool(*one, bits, module.cells[stage - 1], number)
                          for one in zip(features, places, cells)]
                features, places, cells = (list(column) for column in zip(*pooled))
                features = self.batch_norm(features, f'blocks.{number}.pool.norm')
                bits = int(math.log2(module.cells[stage - 1]))
            for i in range(depth):
                order = module.orders[i % len(module.orders)]
                grid = module.cells[max(stage - 1, 0)]
                sequences = [argsort([key(cell, order, bits) for cell in one]) for one in cells]
                features = [self.block(*one, f'blocks.{number}', grid) for one in zip(features, places, sequences)]
                number += 1
        features = [self.layer_norm(x, 'norm') for x in features]
        return torch.stack([torch.cat([x.mean(0), x.max(0).values]) for x in features])

    def pool(self, x, places, cells, bits, grid, number):
        """Merge the rows of each cell of a coarser grid."""
        x = self.linear(x, f'blocks.{number}.pool.linear')
        coarse = [tuple(v * grid >> bits for v in cell) for cell in cells]
        found = sorted(set(coarse))
        members = [[i for i, cell in enumerate(coarse) if cell == one] for one in found]
        return (torch.stack([x[rows].max(0).values for rows in members]),
                torch.stack([places[rows].mean(0) for rows in members]), found)

    def block(self, x, places, order, name, grid):
        """Add the positional encoding, then attention and MLP in each window of the sequence."""
        weight = self.w[f'{name}.position.weight']
        radius, n = len(weight) // 2, len(order)
        encoded = torch.zeros_like(x)
        for i, row in enumerate(order):
            near = [order[min(max(i + k, 0), n - 1)] for k in range(-radius, radius + 1)]
            mixed = sum(w * x[other] for w, other in zip(weight, near))
            offsets = torch.cat([(places[other] - places[row]) * grid for other in near])
            encoded[row] = self.layer_norm(self.linear(mixed, f'{name}.position.linear')
                                           + self.linear(offsets, f'{name}.position.offsets'), f'{name}.position.norm')
        x = x + encoded
        count = math.ceil(n / self.module.window)
        for i in range(count):
            rows = order[math.ceil(i * n / count):math.ceil((i + 1) * n / count)]
            x[rows] = self.window(x[rows], f'{name}.block')
        return x

    def window(self, x, name):
        heads = self.module.get_submodule(name).attn.num_heads
        qkv = self.linear(self.layer_norm(x, f'{name}.norm1'), f'{name}.attn.qkv').chunk(3, dim=1)
        mixed = []
        for q, k, v in zip(*(part.chunk(heads, dim=1) for part in qkv)):
            mixed.append((q @ k.T / q.shape[1] ** 0.5).softmax(-1) @ v)
        x = x + self.linear(torch.cat(mixed, dim=1), f'{name}.attn.proj')
        return x + self.linear(gelu(self.linear(self.layer_norm(x, f'{name}.norm2'), f'{name}.mlp.fc1')),
                               f'{name}.mlp.fc2')


def argsort(keys):
    return sorted(range(len(keys)), key=keys.__getitem__)


def gelu(x):
    cdf = NormalDist().cdf
    return x * x.detach().clone().apply_(cdf)
