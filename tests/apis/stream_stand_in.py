"""Parts of a stream that worker processes load quickly: a stand-in for a model, and a reader that harms its process."""
import os
import signal

import torch

from clipgs_plugin.datasets.preparation import read_object


def identity(results):
    return {'inputs': results['gaussians']}


class MeanColour:
    """Stand-in for an inferencer, whose embedding of an object is the direction of its mean SH coefficients."""

    origin, device, transform = ('stand-in', None), torch.device('cpu'), staticmethod(identity)

    def __init__(self):
        self.batches = []

    def require_embeddings(self):
        pass

    def encode(self, clouds):
        self.batches.append(len(clouds))
        if any(len(cloud) == 13 for cloud in clouds):
            raise ValueError('13 Gaussians bring bad luck')
        if any(len(cloud) == 14 for cloud in clouds):
            return torch.full((len(clouds), 3), torch.nan)
        return torch.nn.functional.normalize(torch.stack([cloud.sh.mean((0, 1)) for cloud in clouds]), dim=-1)


def dangerous(path):
    if 'deadly' in path:
        os.kill(os.getpid(), signal.SIGKILL)
    cloud, _ = read_object(path)
    return cloud, dict(pid=os.getpid())
