"""Configs of the paper's recipe: they build, load published weights and learn."""
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from clipgs_plugin import GaussianBatch
from clipgs_plugin.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from clipgs_plugin.registry.catalogue import load_catalogue

UNI3D = {'s': (384, 12, 22.5e6), 'b': (768, 12, 86.95e6), 'l': (1024, 24, 304.7e6)}


def paper_config(root, size):
    return Config.fromfile(root / 'configs' / 'clipgs' / f'clipgs_uni3d-{size}_uni3d-init_20e_objaverse.py')


def base_config(root, name):
    return Config.fromfile(root / 'configs' / '_base_' / 'models' / f'{name}.py')


def reduced(cfg):
    """Reduce a config to one block and few patches, for speed."""
    cfg.merge_from_dict({'model.encoder.backbone.depth': 1, 'model.encoder.tokenizer.num_groups': 16,
                         'model.encoder.tokenizer.group_size': 8})
    return cfg


def uni3d_file(path, encoder):
    """Write the weights of an encoder, shifted by 0.01, as a Uni3D checkpoint."""
    names = {'tokenizer.patch_encoder.': 'encoder.', 'backbone.blocks.': 'visual.blocks.',
             'backbone.fc_norm.': 'visual.fc_norm.', 'backbone.': '', 'projection.': 'trans2embed.'}
    state = {}
    for key, value in encoder.state_dict().items():
        old = next((old for old in names if key.startswith(old)), None)
        if old is not None:
            state['point_encoder.' + names[old] + key.removeprefix(old)] = value + 0.01
    torch.save({'module': state}, path)
    return path


def training_batch(random_cloud, width, num=6):
    generator = torch.Generator().manual_seed(0)
    unit = lambda *shape: F.normalize(torch.randn(*shape, generator=generator), dim=-1)  # noqa: E731
    clouds = [random_cloud(60 + i, i).normalise() for i in range(num)]
    return dict(inputs=GaussianBatch.from_clouds(clouds),
                data_samples=dict(text=unit(num, width), views=unit(num, 5, width)))


def two_steps(cfg, model, batch):
    """Return the total loss before the first and the second training step on the same batch."""
    model.train()
    options = dict(cfg.optim_wrapper)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(type=options.pop('constructor'), optim_wrapper_cfg=options))
    optim_wrapper = constructor(model)
    logs = [model.train_step(batch, optim_wrapper) for _ in range(2)]
    return [log['loss'].item() for log in logs]


@pytest.mark.parametrize('size', UNI3D)
def test_configs_have_the_recipe_of_the_paper(root, size):
    cfg = paper_config(root, size)
    encoder = cfg.model.encoder
    assert (encoder.tokenizer.num_groups, encoder.tokenizer.group_size, encoder.embed_dim) == (512, 64, 1024)
    assert encoder.init_cfg.type == 'clipgs_plugin.PointCloudPretrained'
    assert f'uni3d-{size}' in encoder.init_cfg.checkpoint
    assert cfg.model.image_loss == dict(type='clipgs_plugin.ImageVotingLoss', num_views=5)
    assert cfg.train_dataloader.dataset.num_views == 5
    assert cfg.num_gaussians == 10_000
    teacher = load_catalogue('teachers')[cfg.teacher.model]
    assert (teacher['model'], teacher['width']) == ('EVA02-E-14-plus', encoder.embed_dim)
    assert encoder.teacher == cfg.teacher.model
    assert cfg.train_dataloader.dataset.features == cfg.test_dataloader.dataset.features == cfg.teacher.model

    width, depth, parameters = UNI3D[size]
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert len(model.encoder.backbone.blocks) == depth and model.encoder.backbone.out_channels == width
    refinement = sum(p.numel() for p in model.encoder.tokenizer.refinement.parameters())
    assert sum(p.numel() for p in model.parameters()) - refinement == pytest.approx(parameters, rel=1e-3)
    assert refinement < 0.02 * parameters


@pytest.mark.parametrize('size', UNI3D)
def test_paper_configs_load_published_weights_and_learn(root, tmp_path, random_cloud, size):
    torch.manual_seed(0)
    cfg = reduced(paper_config(root, size))
    published = MODELS.build(cfg.model).encoder
    path = uni3d_file(tmp_path / 'model.pt', published)
    cfg.model.encoder.init_cfg.checkpoint = str(path)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for key, value in published.state_dict().items():
        if not key.startswith('tokenizer.refinement'):
            assert torch.equal(model.encoder.state_dict()[key], value + (0.01 if 'num_batches' not in key else 0)), key
    gate = model.encoder.tokenizer.refinement.gate.weight
    assert gate.abs().max() == 0

    first, second = two_steps(cfg, model, training_batch(random_cloud, width=1024))
    assert second < first
    assert gate.abs().max() > 0


def test_nano_model_is_small_and_learns(root, random_cloud):
    torch.manual_seed(0)
    cfg = base_config(root, 'gs_encoder_nano')
    cfg.optim_wrapper = paper_config(root, 's').optim_wrapper
    model = MODELS.build(cfg.model)
    assert sum(value.numel() for value in model.state_dict().values()) * 2 < 8e6  # bytes in half precision
    first, second = two_steps(cfg, model, training_batch(random_cloud, cfg.model.encoder.embed_dim))
    assert second < first


@pytest.mark.parametrize('name', ['gs_encoder_nano', 'gs_encoder_small', 'gs_encoder_base'])
def test_base_models_embed(root, random_cloud, name):
    cfg = base_config(root, name)
    if name != 'gs_encoder_nano':
        reduced(cfg)
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        embedding = model(GaussianBatch.from_clouds([random_cloud(100)]), mode='tensor')
    assert embedding.shape == (1, cfg.model.encoder.embed_dim) and embedding.isfinite().all()
