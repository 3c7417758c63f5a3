"""Pull a splat towards a text: the embedding as a loss, or score, of Gaussians that a model generates.

    python examples/embedding_as_loss.py FILE "a red chair" --steps 5

Nothing is rendered. Gradients reach means, quats, log_scales, opacity_logits and sh through the tokens. Which Gaussians
form a patch is decided anew in every step and has no gradient.
"""
import argparse
from copy import deepcopy

import torch
import torch.nn.functional as F

from clipgs_plugin import CLIPGSInferencer, GaussianBatch, GaussianCloud
from clipgs_plugin.models import IndexedEncoder, encoder_inputs

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('file', help='splat file')
parser.add_argument('text')
parser.add_argument('--model', default='clipgs_toy', help='name of tools/list_models.py')
parser.add_argument('--steps', type=int, default=20)
parser.add_argument('--lr', type=float, default=0.005)
args = parser.parse_args()

clipgs = CLIPGSInferencer(args.model)
encoder = clipgs.model.encoder.requires_grad_(False)
target = clipgs.embed_text(args.text).clone()   # out of inference mode, since the loss keeps it for its gradient
cloud = clipgs.prepare(args.file)


def loss_of(embedding):
    return 1 - F.cosine_similarity(embedding, target.to(embedding)).mean()


# The gradient is that of the function: compare it with a finite difference, in float64 and for given patches.
exact = IndexedEncoder(deepcopy(encoder)).double()
inputs = encoder_inputs(encoder, GaussianBatch.from_clouds([cloud]))
gaussians = inputs.pop('gaussians').double().requires_grad_()
gradient, = torch.autograd.grad(loss_of(exact(gaussians, **inputs)), gaussians)
step = 1e-6 * gradient / gradient.norm()
with torch.no_grad():
    ahead, behind = (loss_of(exact(gaussians + sign * step, **inputs)) for sign in (1, -1))
slope = float((ahead - behind) / 2e-6)
print(f'slope along the gradient: {slope:.6f} by finite differences, {gradient.norm():.6f} by autograd')

parameters = {name: value.clone().requires_grad_() for name, value in cloud.fields()}
optimiser = torch.optim.Adam(parameters.values(), lr=args.lr)
for step in range(args.steps + 1):
    batch = GaussianBatch.from_clouds([GaussianCloud(**parameters)])   # a generator would make the parameters
    loss = loss_of(encoder(batch))
    print(f'step {step}: cosine to {args.text!r} {1 - loss.item():.4f}')
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
