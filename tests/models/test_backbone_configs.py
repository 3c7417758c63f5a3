"""Configs of all backbones: they build, learn and match the published models in their names."""
import torch
import torch.nn.functional as F

from clipgs_plugin import GaussianBatch, get_config
from clipgs_plugin.models.checkpoints import Contract
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

TEACHERS = load_catalogue('teachers')


def names(root, pattern):
    return sorted(path.stem for path in (root / 'configs' / 'backbones').glob(pattern))


def pytest_generate_tests(metafunc):
    from pathlib import Path
    root = Path(__file__).parents[2]
    for argument, pattern in (('toy', '*_toy-world.py'), ('published', '*_objaverse.py')):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, names(root, pattern))


def test_every_family_has_a_config_of_both_kinds(root):
    families = {'pointmae', 'ulip', 'openshape', 'recon', 'reconpp', 'gaussianmae', 'pointbert', 'uni3d'}
    everywhere = {path.stem for path in (root / 'configs').rglob('clipgs_*.py')}
    for end in ('toy-world', 'objaverse'):
        found = {name.split('_')[1].partition('-')[0].rstrip('2') for name in everywhere if name.endswith(end)}
        assert families <= found | ({'ulip'} if 'ulip2' in found else set())


def batch_of(random_cloud, width, num=4, size=80):
    generator = torch.Generator().manual_seed(0)
    unit = lambda *shape: F.normalize(torch.randn(*shape, generator=generator), dim=-1)  # noqa: E731
    clouds = [random_cloud(size + i, i).normalise() for i in range(num)]
    return dict(inputs=GaussianBatch.from_clouds(clouds),
                data_samples=dict(text=unit(num, width), views=unit(num, 5, width)))


def test_toy_configs_learn(toy, random_cloud):
    torch.manual_seed(0)
    model = MODELS.build({**get_config(toy).model, 'teacher': None})
    model.init_weights()
    model.train()
    batch = batch_of(random_cloud, model.encoder.embed_dim)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        terms = model(**batch, mode='loss')
        loss = terms['loss_text'] + terms['loss_image']
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    # The gate of the refinement opens after the first step; then every parameter has a gradient.
    grads = {name: value.grad for name, value in model.named_parameters()}
    assert not [name for name, grad in grads.items() if grad is None or not grad.isfinite().all()]


def test_published_configs_match_their_catalogue_entry(published):
    cfg = get_config(published)
    with torch.device('meta'):
        encoder = MODELS.build(cfg.model.encoder)
    teacher = TEACHERS[cfg.teacher.model]
    assert encoder.embed_dim == teacher['width']
    for part in ('train', 'val', 'test'):
        assert cfg[f'{part}_dataloader'].dataset.features == cfg.teacher.model
    name = cfg.model.encoder.backbone
    if isinstance(name, str):
        entry = load_catalogue('checkpoints')[name]
        contract = Contract.from_dict(entry['contract'])
        assert not contract.disagreements(encoder)
        assert contract.teacher in (None, cfg.teacher.model)
        assert encoder.teacher == cfg.teacher.model
        assert cfg.num_gaussians >= contract.num_points
        assert encoder.init_cfg['checkpoint'] == name
