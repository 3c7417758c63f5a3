"""Random tokens and weights, and layers in float64, which the tests of models share."""
import math

import torch

from clipgs_plugin.models import Tokens


def randomise(module, seed=0):
    """Draw weights, biases and running statistics that no symmetry or zero can hide behind."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                draw = torch.randn(value.shape, generator=generator)
                fan_in = value[0].numel() if value.ndim > 1 else 1
                value.copy_(draw.abs() + 0.5 if name.endswith('running_var') else draw / fan_in ** 0.5)
    return module.eval()


def randomise_parameters(module, seed=0):
    """Draw matrices scaled by their fan-in and everything else with a deviation of 0.3."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            scale = value[0].numel() ** -0.5 if value.ndim == 2 else 0.3
            value.copy_(torch.randn(value.shape, generator=generator) * scale)
    return module.eval()


def tokens(b=2, g=10, channels=24, masked=None, seed=0):
    """Draw random tokens; ``masked`` lists the number of real patches of each object."""
    generator = torch.Generator().manual_seed(seed)
    mask = None if masked is None else torch.arange(g) < torch.tensor(masked)[:, None]
    return Tokens(torch.randn(b, g, channels, generator=generator), torch.randn(b, g, 3, generator=generator), mask)


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def silu(x):
    return x / (1 + (-x).exp())


class Formula:
    """Layers of a transformer in float64, by their names in a state dict."""

    def __init__(self, module):
        self.w = {key: value.double() for key, value in module.state_dict().items()}

    def linear(self, x, name):
        x = x @ self.w[f'{name}.weight'].T
        return x + self.w[f'{name}.bias'] if f'{name}.bias' in self.w else x

    def norm(self, x, name, eps=1e-5):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        return x * self.w[f'{name}.weight'] + self.w[f'{name}.bias']

    def position(self, centers):
        return self.linear(gelu(self.linear(centers.double(), 'pos_embed.0')), 'pos_embed.2')

    def mlp(self, x, name):
        return self.linear(gelu(self.linear(x, f'{name}.fc1')), f'{name}.fc2')

    def self_attention(self, x, name, heads):
        q, k, v = self.linear(x, f'{name}.qkv').chunk(3, dim=-1)
        return self.linear(self.attend(q, k, v, heads), f'{name}.proj')

    def cross_attention(self, x, context, name, heads):
        k, v = self.linear(context, f'{name}.kv').chunk(2, dim=-1)
        return self.linear(self.attend(self.linear(x, f'{name}.q'), k, v, heads), f'{name}.proj')

    def prompted(self, x, position):
        """Append the prompts to the patches, and zeros to the positions."""
        if 'prompt_tokens' not in self.w:
            return x, position
        prompts = self.w['prompt_tokens'].expand(len(x), -1, -1)
        return torch.cat([x, prompts], 1), torch.cat([position, torch.zeros_like(prompts)], 1)

    @staticmethod
    def attend(q, k, v, heads):
        out = []
        for query, key, value in zip(*(x.chunk(heads, dim=-1) for x in (q, k, v))):
            weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).exp()
            out.append(weights / weights.sum(-1, keepdim=True) @ value)
        return torch.cat(out, dim=-1)
