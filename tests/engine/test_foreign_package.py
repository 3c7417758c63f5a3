"""Parts of this library in the model and config of another package, by their names alone."""
import ast

from conftest import run_python

from clipgs_plugin import write_gaussians

REGISTRY = """
from mmengine.registry import MODELS as ROOT, Registry
MODELS = Registry('model', parent=ROOT, scope='foreign', locations=['foreign.model'])
"""
MODEL = """
import torch
from mmengine.model import BaseModel
from foreign.registry import MODELS

@MODELS.register_module()
class Scorer(BaseModel):
    def __init__(self, encoder, data_preprocessor):
        super().__init__(data_preprocessor)
        self.encoder = MODELS.build(encoder)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.encoder(inputs)
        return scores if mode == 'tensor' else dict(
            loss=torch.nn.functional.cross_entropy(scores, data_samples['label']))
"""
CONFIG = """
default_scope = 'foreign'
custom_imports = dict(imports=['clipgs_plugin'], allow_failed_imports=False)
model = dict(
    type='Scorer', data_preprocessor=dict(type='clipgs_plugin.GaussianDataPreprocessor'),
    encoder=dict(
        type='clipgs_plugin.GSEncoder', embed_dim=2,
        tokenizer=dict(type='clipgs_plugin.GSTokenizer', num_groups=8, group_size=8, channels=16,
                       patch_encoder=dict(widths=(8, 8, 16)), refine_widths=(8, 8, 8)),
        backbone=dict(type='clipgs_plugin.PointBERT', embed_dims=64, depth=1, num_heads=1, in_channels=16)))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'), dataset=dict(type='clipgs_plugin.GaussianFolder', root='data', pipeline=[
        dict(type='clipgs_plugin.LoadGaussians'), dict(type='clipgs_plugin.PackGaussians')]))
train_cfg = dict(by_epoch=False, max_iters=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
work_dir = 'work'
"""
TRAIN = """
import sys
assert not [name for name in sys.modules if name.startswith('clipgs_plugin')]
from mmengine.config import Config
from mmengine.runner import Runner
runner = Runner.from_cfg(Config.fromfile('config.py'))
before = {name: value.clone() for name, value in runner.model.named_parameters()}
runner.train()
same = [name for name, value in runner.model.named_parameters() if value.equal(before[name])]
print(type(runner.model).__module__, type(runner.model.encoder).__module__, runner.iter, same)
"""


def make_objects(folder, random_cloud):
    for seed, name in enumerate(['chair', 'mug']):
        (folder / name).mkdir(parents=True)
        write_gaussians(random_cloud(60 + seed, seed), folder / name / 'a.ply')


def test_another_packages_runner_trains_our_encoder(root, tmp_path, random_cloud):
    make_objects(tmp_path / 'data', random_cloud)
    (tmp_path / 'foreign').mkdir()
    for name, text in [('__init__', ''), ('registry', REGISTRY), ('model', MODEL)]:
        (tmp_path / 'foreign' / f'{name}.py').write_text(text)
    (tmp_path / 'config.py').write_text(CONFIG)
    last = run_python(TRAIN, tmp_path).splitlines()[-1]
    assert last == "foreign.model clipgs_plugin.models.gs_encoder 2 []"


def test_the_example_trains_and_is_short(root, tmp_path, random_cloud):
    make_objects(tmp_path / 'data', random_cloud)
    code = f"""
import sys
sys.path.insert(0, {str(root / 'examples')!r})
import mmengine_foreign_config
runner = mmengine_foreign_config.main([{str(tmp_path / 'data')!r}, '--iterations', '2'])
print(runner.iter, type(runner.model.encoder).__module__)
"""
    assert run_python(code, tmp_path).splitlines()[-1] == '2 clipgs_plugin.models.gs_encoder'
    text = (root / 'examples' / 'mmengine_foreign_config.py').read_text(encoding='utf-8')
    assert text.count('\n') < 80 and ast.get_docstring(ast.parse(text))
    assert 'import clipgs_plugin' not in text and 'from clipgs_plugin' not in text
