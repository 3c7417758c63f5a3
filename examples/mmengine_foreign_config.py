"""Train a model of another package on real splats; its config takes parts of clipgs_plugin by name only.

    python examples/mmengine_foreign_config.py SPLATS --iterations 20

SPLATS holds class folders of splat files, in any format. The model learns which two halves belong to one object. The
package "halves" below stands for yours: it has a registry, a model and a config, in which clipgs_plugin is a name.
"""
import argparse
import tempfile

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT
from mmengine.registry import Registry
from mmengine.runner import Runner

MODELS = Registry('model', parent=ROOT, scope='halves')


@MODELS.register_module()
class HalfMatcher(BaseModel):
    """Encoder of another package, trained to match the halves of an object."""

    def __init__(self, encoder, loss, data_preprocessor):
        super().__init__(data_preprocessor)
        self.encoder, self.contrast = MODELS.build(encoder), MODELS.build(loss)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        even, odd = (self.encoder(inputs.apply(lambda x, i=i: x[:, i::2] if x.ndim > 1 else (x + 1 - i) // 2))
                     for i in range(2))
        if mode == 'tensor':
            return even
        matches = (even @ odd.T).argmax(1) == torch.arange(len(odd), device=odd.device)
        return dict(loss=self.contrast(even, odd, torch.tensor(10.0)), accuracy=100 * matches.float().mean())


CONFIG = dict(
    default_scope='halves',
    custom_imports=dict(imports=['clipgs_plugin'], allow_failed_imports=False),
    model=dict(
        type='HalfMatcher',
        data_preprocessor=dict(type='clipgs_plugin.GaussianDataPreprocessor'),
        loss=dict(type='clipgs_plugin.ContrastiveLoss'),
        encoder=dict(
            type='clipgs_plugin.GSEncoder', embed_dim=64,
            tokenizer=dict(type='clipgs_plugin.GSTokenizer', num_groups=32, group_size=16, channels=64),
            backbone=dict(type='clipgs_plugin.PointBERT', embed_dims=64, depth=2, num_heads=2, in_channels=64))),
    train_dataloader=dict(
        batch_size=8, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
        collate_fn=dict(type='pseudo_collate'),
        dataset=dict(type='clipgs_plugin.GaussianFolder', pipeline=[
            dict(type='clipgs_plugin.LoadGaussians'),
            dict(type='clipgs_plugin.SampleGaussians', num=1024),
            dict(type='clipgs_plugin.NormaliseGaussians'),
            dict(type='clipgs_plugin.PackGaussians')])),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
    train_cfg=dict(by_epoch=False),
    default_hooks=dict(logger=dict(type='LoggerHook', interval=5)))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='folder of class folders of splat files')
    parser.add_argument('--iterations', type=int, default=20)
    args = parser.parse_args(argv)
    cfg = Config(CONFIG)
    cfg.train_cfg.max_iters, cfg.train_dataloader.dataset.root = args.iterations, args.folder
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        runner = Runner.from_cfg(cfg)
        runner.train()
    return runner


if __name__ == '__main__':
    main()
