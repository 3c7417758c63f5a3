"""Plain float64 formula of every family, on the tensors of its files by their original names."""
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

RECON_TOKENS = ('cls', 'img', 'text')

# Plausible mistakes with the same tensors: in any transformer, and in the patch encoder of most families.
TRANSFORMER = ('tanh gelu', 'other eps', 'other heads')
PATCHES = ('local before global',)


class Cloud(NamedTuple):
    points: Tensor                     # (B, N, 3)
    colors: Tensor | None = None       # (B, N, 3)
    attributes: Tensor | None = None   # (B, N, 11) opacity, scale, rotation and colour of Gaussians


class Output(NamedTuple):
    patch_tokens: Tensor
    feature: Tensor
    embedding: Tensor


class Weights(Mapping):
    """Tensors of a file in float64, by names without the prefix of the point-cloud model."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str) -> None:
        self.names = {key.removeprefix(prefix): key for key in sorted(state, key=lambda key: key.startswith(prefix))}
        self.state = state

    def __getitem__(self, name: str) -> Tensor:
        return self.state[self.names[name]].double()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Formula:
    """Layers by name. ``wrong`` introduces one of ``mistakes``."""

    eps = 1e-5  # of layer norms
    mistakes: tuple[str, ...] = ()

    def __init__(self, state: Mapping[str, Tensor], prefix: str, heads: int, wrong: str = '') -> None:
        self.w = Weights(state, prefix)
        self.heads = 2 * heads if wrong == 'other heads' else heads
        self.wrong = wrong
        if wrong == 'other eps':
            self.eps = {1e-5: 1e-6, 1e-6: 1e-5}[self.eps]

    def linear(self, x, name):
        """Apply a linear layer, or a convolution with kernel 1, over the last axis."""
        x = x @ self.w[f'{name}.weight'].flatten(1).T
        return x + self.w[f'{name}.bias'] if f'{name}.bias' in self.w else x

    def norm(self, x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return x * self.w[f'{name}.weight'] + self.w[f'{name}.bias']

    def batch_norm(self, x, name):
        x = (x - self.w[f'{name}.running_mean']) / (self.w[f'{name}.running_var'] + 1e-5).sqrt()
        return x * self.w[f'{name}.weight'] + self.w[f'{name}.bias']

    def gelu(self, x):
        if self.wrong == 'tanh gelu':
            return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
        return x / 2 * (1 + torch.erf(x / math.sqrt(2)))

    def mlp(self, x, first, second):
        return self.linear(self.gelu(self.linear(x, first)), second)

    def position(self, centers):
        return self.mlp(centers, 'pos_embed.0', 'pos_embed.2')

    def attend(self, q, k, v):
        out = []
        for query, key, value in zip(*(x.chunk(self.heads, dim=-1) for x in (q, k, v))):
            weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).exp()
            out.append(weights / weights.sum(-1, keepdim=True) @ value)
        return torch.cat(out, dim=-1)

    def self_attention(self, x, name):
        return self.linear(self.attend(*self.linear(x, f'{name}.qkv').chunk(3, dim=-1)), f'{name}.proj')

    def cross_attention(self, x, seen, name):
        q, (k, v) = self.linear(x, f'{name}.q'), self.linear(seen, f'{name}.kv').chunk(2, dim=-1)
        return self.linear(self.attend(q, k, v), f'{name}.proj')

    def beside_pooled(self, local):
        """Concatenate the maximum over each patch and every local feature."""
        pooled = local.amax(-2, keepdim=True).expand_as(local)
        return torch.cat([local, pooled] if self.wrong == 'local before global' else [pooled, local], dim=-1)

    def point_net(self, patches, name='encoder'):
        """Map patches (B, G, K, C) to tokens (B, G, E)."""
        x = self.batch_norm(self.linear(patches, f'{name}.first_conv.0'), f'{name}.first_conv.1').relu()
        x = self.between(self.linear(x, f'{name}.first_conv.3'), name)
        x = self.linear(self.beside_pooled(x), f'{name}.second_conv.0')
        x = self.batch_norm(x, f'{name}.second_conv.1').relu()
        return self.linear(x, f'{name}.second_conv.3').amax(-2)

    def between(self, local, name):
        """Transform features between the two stages of a patch encoder. The default is the identity."""
        return local

    def depth(self, name):
        return len({key[len(name):].split('.')[0] for key in self.w if key.startswith(name)})


class PointBERT(Formula):
    """Point-BERT, and ULIP with its projection."""

    mistakes = (*TRANSFORMER, *PATCHES, 'position once')

    def __call__(self, cloud, center_idx, neighbor_idx):
        patch_tokens = self.point_net(patches(cloud, center_idx, neighbor_idx))
        x = self.tokens(patch_tokens)
        position = self.position(take(cloud.points, center_idx))
        if 'cls_token' in self.w:
            x = torch.cat([self.w['cls_token'].expand(len(x), -1, -1), x], dim=1)
            position = torch.cat([self.w['cls_pos'].expand(len(x), -1, -1), position], dim=1)
        for i in range(self.depth('blocks.blocks.')):
            name = f'blocks.blocks.{i}'
            if i == 0 or self.wrong != 'position once':
                x = x + position
            x = x + self.self_attention(self.norm(x, f'{name}.norm1'), f'{name}.attn')
            x = x + self.mlp(self.norm(x, f'{name}.norm2'), f'{name}.mlp.fc1', f'{name}.mlp.fc2')
        x = self.norm(x, 'norm')
        if 'cls_token' in self.w:
            feature = torch.cat([x[:, 0], x[:, 1:].amax(1)], dim=-1)
        else:
            feature = torch.cat([x.mean(1), x.amax(1)], dim=-1)
        embedding = feature @ self.w['pc_projection'] if 'pc_projection' in self.w else feature
        return Output(patch_tokens, feature, embedding)

    def tokens(self, patch_tokens):
        return self.linear(patch_tokens, 'reduce_dim')


class PointMAE(PointBERT):
    """Point-MAE, Gaussian-MAE and Gaussian-JEPA."""

    def tokens(self, patch_tokens):
        return patch_tokens


class SoftGaussianMAE(PointMAE):
    """Gaussian-MAE with soft neighbours."""

    mistakes = (*PATCHES, 'other heads', 'bias inside the exponential', 'distances not squared', 'one temperature')

    def between(self, local, name):
        learned, bias = self.w[f'{name}.n3_agg.learnable_temp'], self.w[f'{name}.n3_agg.log_temp_bias']
        temperature = (learned + bias).exp() if self.wrong == 'bias inside the exponential' else learned.exp() + bias
        if self.wrong == 'one temperature':
            temperature = self.w[f'{name}.n3_agg.nnn.log_temp'].exp().expand_as(learned)
        distances = (local - local.amax(-2, keepdim=True)).square().sum(-1)  # (B, G, K)
        if self.wrong == 'distances not squared':
            distances = distances.sqrt()
        neighbors = []
        for t in temperature:
            weights = (-(distances - distances.amin(-1, keepdim=True)) / t).exp()
            weights = weights / weights.sum(-1, keepdim=True)
            neighbors.append((weights[..., None] * local).sum(-2))
        return torch.stack(neighbors, dim=-2)


class Uni3D(Formula):
    """Uni3D. Its blocks differ between sizes."""

    eps = 1e-6
    mistakes = (*TRANSFORMER, *PATCHES, 'position at every block', 'gate and value exchanged', 'mean in place of cls')

    def __call__(self, cloud, center_idx, neighbor_idx):
        patch_tokens = self.point_net(patches(cloud, center_idx, neighbor_idx))
        x = self.linear(patch_tokens, 'encoder2trans')
        position = self.position(take(cloud.points, center_idx))
        x = torch.cat([self.w['cls_token'].expand(len(x), -1, -1), x], dim=1)
        position = torch.cat([self.w['cls_pos'].expand(len(x), -1, -1), position], dim=1)
        for i in range(self.depth('visual.blocks.')):
            name = f'visual.blocks.{i}'
            if i == 0 or self.wrong == 'position at every block':
                x = x + position
            x = x + self.eva_attention(self.norm(x, f'{name}.norm1'), f'{name}.attn')
            x = x + self.eva_mlp(self.norm(x, f'{name}.norm2'), f'{name}.mlp')
        feature = x.mean(1) if self.wrong == 'mean in place of cls' else x[:, 0]
        feature = self.norm(feature, 'visual.fc_norm')
        return Output(patch_tokens, feature, self.linear(feature, 'trans2embed'))

    def eva_attention(self, x, name):
        if f'{name}.q_proj.weight' in self.w:
            q, k, v = (self.linear(x, f'{name}.{part}_proj') for part in 'qkv')
        else:
            q, k, v = self.linear(x, f'{name}.qkv').chunk(3, dim=-1)
            q, v = q + self.w[f'{name}.q_bias'], v + self.w[f'{name}.v_bias']
        return self.linear(self.attend(q, k, v), f'{name}.proj')

    def eva_mlp(self, x, name):
        if f'{name}.fc1_g.weight' in self.w:
            gate, value = self.linear(x, f'{name}.fc1_g'), self.linear(x, f'{name}.fc1_x')
        elif self.w[f'{name}.fc1.weight'].shape[0] == 2 * self.w[f'{name}.fc2.weight'].shape[1]:
            gate, value = self.linear(x, f'{name}.fc1').chunk(2, dim=-1)
        else:
            return self.mlp(x, f'{name}.fc1', f'{name}.fc2')
        if self.wrong == 'gate and value exchanged':
            gate, value = value, gate
        x = gate / (1 + (-gate).exp()) * value
        return self.linear(self.norm(x, f'{name}.norm') if f'{name}.norm.weight' in self.w else x, f'{name}.fc2')


class OpenShape(Formula):
    """OpenShape's PointBERT."""

    mistakes = (*TRANSFORMER, 'centre behind its token', 'maximum in place of cls')

    def __call__(self, cloud, center_idx, neighbor_idx):
        centers = take(cloud.points, center_idx)
        neighbors = take(cloud.points, neighbor_idx)
        x = torch.cat([neighbors - centers[:, :, None], neighbors, take(cloud.colors, neighbor_idx)], dim=-1)
        for i in range(3):
            x = self.batch_norm(self.linear(x, f'sa.mlp_convs.{i}'), f'sa.mlp_bns.{i}').relu()
        patch_tokens = x.amax(-2)
        both = [patch_tokens, centers] if self.wrong == 'centre behind its token' else [centers, patch_tokens]
        x = self.norm(self.linear(torch.cat(both, dim=-1), 'lift.0'), 'lift.2')
        x = torch.cat([self.w['cls_token'].expand(len(x), 1, -1), x], dim=1)
        for i in range(self.depth('transformer.layers.')):
            name = f'transformer.layers.{i}'
            qkv = self.linear(self.norm(x, f'{name}.0.norm'), f'{name}.0.fn.to_qkv').chunk(3, dim=-1)
            x = x + self.linear(self.attend(*qkv), f'{name}.0.fn.to_out.0')
            x = x + self.mlp(self.norm(x, f'{name}.1.norm'), f'{name}.1.fn.net.0', f'{name}.1.fn.net.3')
        feature = x.amax(1) if self.wrong == 'maximum in place of cls' else x[:, 0]
        for name in ('proj', 'pc_encoder.proj'):
            if f'{name}.weight' in self.w:
                return Output(patch_tokens, feature, self.linear(feature, name))
        return Output(patch_tokens, feature, feature)


class ReCon(Formula):
    """ReCon. Its residuals start from the normalised tensors."""

    mistakes = (*TRANSFORMER, *PATCHES, 'position once', 'pre-norm', 'patches after their self-attention')

    def __call__(self, cloud, center_idx, neighbor_idx):
        patch_tokens = x = self.point_net(patches(cloud, center_idx, neighbor_idx))
        position = self.position(take(cloud.points, center_idx))
        looking = torch.cat([self.w[f'{name}_token'] for name in RECON_TOKENS], dim=1).expand(len(x), -1, -1)
        learned = torch.cat([self.w[f'{name}_pos'] for name in RECON_TOKENS], dim=1)
        for i in range(self.depth('blocks.blocks.')):
            name = f'blocks.blocks.{i}'
            if i == 0 or self.wrong != 'position once':
                x, looking = x + position, looking + learned
            normed, looking_normed = self.norm(x, f'{name}.norm1'), self.norm(looking, f'{name}.norm1_contrast')
            if self.wrong != 'pre-norm':
                x, looking = normed, looking_normed
            x = x + self.self_attention(normed, f'{name}.attn')
            seen = x if self.wrong == 'patches after their self-attention' else normed
            looking = looking + self.cross_attention(looking_normed, seen, f'{name}.attn_contrast')
            normed, looking_normed = self.norm(x, f'{name}.norm2'), self.norm(looking, f'{name}.norm2_contrast')
            if self.wrong != 'pre-norm':
                x, looking = normed, looking_normed
            x = x + self.mlp(normed, f'{name}.mlp.fc1', f'{name}.mlp.fc2')
            looking = looking + self.mlp(looking_normed, f'{name}.mlp_contrast.fc1', f'{name}.mlp_contrast.fc2')
        x, looking = self.norm(x, 'norm'), self.norm(looking, 'norm')
        feature = torch.cat([looking[:, 0], looking[:, 1], looking[:, 2], x.amax(1)], dim=-1)
        widths = {len(self.w[name]) for name in ('img_proj.weight', 'text_proj.weight') if name in self.w}
        if len(widths) != 1:
            return Output(patch_tokens, feature, feature)
        return Output(patch_tokens, feature, torch.stack([self.linear(looking[:, 1], 'img_proj'),
                                                          self.linear(looking[:, 2], 'text_proj')], dim=1))


class ReConPlusPlus(Formula):
    """ReCon++ as trained on OpenShape's data."""

    mistakes = (*TRANSFORMER, *PATCHES, 'position once', 'patches before their block', 'model.norm in place of ln_f2',
                'no LayerScale', 'twelve image queries')

    def __call__(self, cloud, center_idx, neighbor_idx):
        patch_tokens = x = self.point_net(patches(cloud, center_idx, neighbor_idx), 'embed')
        position = self.position(take(cloud.points, center_idx))
        queries = self.w['global_query'].expand(len(x), -1, -1)
        for i in range(self.depth('encoder.blocks.local_blocks.')):
            before, name = x, f'encoder.blocks.local_blocks.{i}'
            if i == 0 or self.wrong != 'position once':
                x = x + position
            x = self.add(x, self.self_attention(self.norm(x, f'{name}.norm1'), f'{name}.attn'), name)
            name = f'encoder.blocks.global_blocks.{i}'
            seen = self.norm(before if self.wrong == 'patches before their block' else x, f'{name}.norm1')
            looked = self.cross_attention(self.norm(queries, f'{name}.norm1'), seen, f'{name}.attn')
            queries = self.add(queries, looked, name)
        queries = self.norm(queries, 'norm' if self.wrong == 'model.norm in place of ln_f2' else 'encoder.ln_f2')
        image, text = queries.tensor_split([12 if self.wrong == 'twelve image queries' else 13], dim=1)
        embedding = torch.cat([self.linear(image, 'img_proj'), self.linear(text, 'text_proj')], dim=1)
        return Output(patch_tokens, queries, embedding)

    def add(self, x, attended, name):
        x = x + self.scale(attended, f'{name}.ls1')
        return x + self.scale(self.mlp(self.norm(x, f'{name}.norm2'), f'{name}.mlp.fc1', f'{name}.mlp.fc2'),
                              f'{name}.ls2')

    def scale(self, x, name):
        return x if self.wrong == 'no LayerScale' else x * self.w.get(f'{name}.gamma', 1.0)


def take(values, index):
    """Index the rows of (B, N, C) with (B, ...)."""
    return torch.stack([rows[i] for rows, i in zip(values, index)])


def patches(cloud, center_idx, neighbor_idx):
    """Concatenate positions relative to the centre and unchanged colours or attributes, (B, G, K, C)."""
    relative = take(cloud.points, neighbor_idx) - take(cloud.points, center_idx)[:, :, None]
    others = [take(values, neighbor_idx) for values in cloud[1:] if values is not None]
    return torch.cat([relative, *others], dim=-1)


# Patches of the families, as loops over one cloud (N, 3) in float32.


def farthest_points(points: np.ndarray, count: int, skips_origin: bool) -> list[int]:
    """Sample farthest points, starting at index 0.

    pointnet2's kernel skips points within 1e-3 (squared) of the origin, except for its start.
    """
    chosen, nearest = [0], np.full(len(points), np.inf, np.float32)
    while len(chosen) < count:
        best, farthest = 0, -1.0
        for i, point in enumerate(points):
            if skips_origin and (point ** 2).sum() <= 1e-3:
                continue
            nearest[i] = min(nearest[i], ((point - points[chosen[-1]]) ** 2).sum())
            if nearest[i] > farthest:
                best, farthest = i, nearest[i]
        chosen.append(best)
    return chosen


def nearest_points(points: np.ndarray, center: np.ndarray, count: int) -> list[int]:
    return sorted(range(len(points)), key=lambda i: ((points[i] - center) ** 2).sum())[:count]


def first_points_within(points: np.ndarray, center: np.ndarray, count: int, radius: float) -> list[int]:
    """Return the first points by index. If they are too few, repeat the first one."""
    within = [i for i, point in enumerate(points) if ((point - center) ** 2).sum() <= radius ** 2][:count]
    return within + [within[0]] * (count - len(within))


def group(points: Tensor, num_groups: int, group_size: int, radius: float | None,
          skips_origin: bool) -> tuple[Tensor, Tensor]:
    """Return centres (B, G) and neighbours (B, G, K)."""
    centers, neighbors = [], []
    for cloud in points.numpy():
        centers.append(farthest_points(cloud, num_groups, skips_origin))
        neighbors.append([nearest_points(cloud, cloud[i], group_size) if radius is None
                          else first_points_within(cloud, cloud[i], group_size, radius) for i in centers[-1]])
    return torch.tensor(centers), torch.tensor(neighbors)
