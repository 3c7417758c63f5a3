"""Rendered views in CLIP models: what they show, how they are pooled, and gradients to the Gaussians."""
import json
import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import nn
from torchvision.transforms.functional import to_pil_image

from clipgs_plugin import GaussianBatch, get_config
from clipgs_plugin.models import MultiViewCLIP, OpenCLIPTeacher
from clipgs_plugin.models.teachers.sources import PREPROCESS_KEYS
from clipgs_plugin.registry import MODELS

pytestmark = pytest.mark.filterwarnings('ignore:OpenCLIPTeacher:UserWarning')

# Image towers of published families at their smallest, the width of their features, and the model whose preprocessing
# they take from the table of open_clip.
FAMILIES = {
    'clip': (dict(image_size=64, patch_size=16, width=64, layers=1, head_width=32), 32, 'ViT-B-32'),
    'pe': (dict(image_size=384, timm_model_name='vit_pe_core_tiny_patch16_384', timm_pool='map', timm_proj=None), 512,
           'PE-Core-T-16-384'),
    'siglip2': (dict(image_size=224, timm_model_name='vit_tiny_patch16_224', timm_pool='map', timm_proj='none'), 192,
                'ViT-B-16-SigLIP2'),
    'mobileclip2': (dict(image_size=64, timm_model_name='fastvit_t8', timm_pool='avg', timm_proj='linear'), 32,
                    'MobileCLIP2-S0'),
}


@pytest.fixture(scope='module')
def teacher():
    return OpenCLIPTeacher('toy-clip')


def small_model(teacher, **options):
    return MultiViewCLIP(teacher, **{**dict(num_views=2, elevation=20.0, size=32), **options})


def ball(random_cloud, n=60, **options):
    """Return opaque, overlapping Gaussians that cover much of the picture."""
    cloud = random_cloud(n, **options)
    return cloud.replace(log_scales=0.2 * cloud.log_scales - 1.2, opacity_logits=cloud.opacity_logits + 2)


@pytest.fixture(scope='module', params=FAMILIES)
def small_teacher(request, tmp_path_factory):
    """A teacher of random weights with the image tower and the preprocessing of a published family."""
    vision, width, published = FAMILIES[request.param]
    text = dict(context_length=16, vocab_size=49408, width=32, heads=2, layers=1)
    # The name has no family in it, by which open_clip would fetch a tokenizer.
    path = tmp_path_factory.mktemp('configs') / f'small-{width}-{vision["image_size"]}.json'
    path.write_text(json.dumps(dict(embed_dim=width, vision_cfg=vision, text_cfg=text)))
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    teacher = OpenCLIPTeacher(path.stem)
    tag = open_clip.list_pretrained_tags_by_model(published)[0]
    published_cfg = open_clip.get_pretrained_cfg(published, tag)
    found = {key: published_cfg[key] for key in PREPROCESS_KEYS if key in published_cfg}
    assert published == 'ViT-B-32' or set(found) == set(PREPROCESS_KEYS)
    config = PreprocessCfg(**{**teacher.network.visual.preprocess_cfg, **found})
    teacher.preprocess = image_transform_v2(config, is_train=False)
    return teacher


def test_views_are_preprocessed_as_pictures_for_every_family(small_teacher, random_cloud):
    """The embedding equals that of the views saved as pictures and read through the PIL transform."""
    model = small_model(small_teacher, size=None)
    images = model.render_views([ball(random_cloud)])[0]
    assert images.shape == (2, 3, small_teacher.image_size, small_teacher.image_size)
    pictures = [small_teacher.preprocess(to_pil_image((image * 255).round().byte())) for image in images]
    expected = small_teacher.encode_image(torch.stack(pictures))
    found = small_teacher.encode_views(images)
    assert F.cosine_similarity(found, expected).min() > 0.9995
    embedding = model(GaussianBatch.from_clouds([ball(random_cloud)]))
    assert torch.allclose(embedding[0], found.mean(0), atol=1e-5)


@pytest.mark.parametrize('mode, interpolation', [('squash', 'bilinear'), ('squash', 'bicubic'), ('shortest', 'bicubic'),
                                                 ('longest', 'bilinear')])
def test_floats_are_resized_as_pictures_and_pass_gradients(teacher, monkeypatch, random_cloud, mode, interpolation):
    config = PreprocessCfg(size=(48, 64), resize_mode=mode, interpolation=interpolation)
    monkeypatch.setattr(teacher, 'preprocess', image_transform_v2(config, is_train=False))
    images = (small_model(teacher, size=90).render_views([ball(random_cloud)])[0] * 255).round() / 255
    expected = torch.stack([teacher.preprocess(to_pil_image((image * 255).byte())) for image in images])
    grey_level = 1 / 255 / torch.tensor(config.std)[:, None, None]
    images.requires_grad_()
    found = teacher.prepare(images)
    assert ((found - expected) / grey_level).abs().max() < 2.01
    found.sum().backward()
    assert images.grad.abs().sum(1).count_nonzero() > images[:, 0].numel() / 2


def by_loops(model, clouds):
    """Embed objects one by one from their single views."""
    rows = []
    for cloud in clouds:
        images = model.render_views([cloud])[0]
        vectors = torch.stack([model.teacher.encode_views(image[None])[0] for image in images])
        rows.append(vectors.mean(0) if model.pooling == 'mean' else vectors.max(0).values)
    return torch.stack(rows)


@pytest.mark.parametrize('pooling', ['mean', 'max'])
@torch.no_grad()
def test_embeddings_pool_unit_vectors_and_do_not_depend_on_the_batch(random_cloud, pooling):
    clouds = [ball(random_cloud, 40 + 30 * i, seed=i, sh_degree=i % 2) for i in range(3)]
    model = small_model(OpenCLIPTeacher('toy-clip', batch_size=4), num_views=3, pooling=pooling)  # one object at a time
    found = model(GaussianBatch.from_clouds(clouds))
    assert torch.allclose(found, by_loops(model, clouds), atol=1e-5)
    assert found.shape == (3, model.embed_dim)


@torch.no_grad()
def test_embeddings_do_not_depend_on_the_frame_and_hardly_on_floaters(teacher, random_cloud):
    cloud = ball(random_cloud, 300)
    moved = cloud.translate_scale(torch.tensor([50.0, -20.0, 9.0]), 37.0)
    floaters = cloud[:3].replace(means=40.0 * cloud.means[:3])
    joined = type(cloud)(**{name: torch.cat([value, getattr(floaters, name)]) for name, value in cloud.fields()})
    model = small_model(teacher, size=64)
    a, b, c = (F.normalize(model(GaussianBatch.from_clouds([each])), dim=-1)[0] for each in (cloud, moved, joined))
    assert a @ b > 0.9999 and a @ c > 0.99


def test_view_dependent_colours_are_rendered(teacher, random_cloud):
    cloud = ball(random_cloud, sh_degree=1)
    model = small_model(teacher)
    assert (model.render_views([cloud]) - model.render_views([cloud.with_sh_degree(0)])).abs().max() > 0.05


def test_cosines_with_a_text_have_the_gradients_of_finite_differences(teacher, random_cloud):
    """Central differences along the gradient of each raw parameter; moved means also move the cameras."""
    cloud = ball(random_cloud, 25)
    model = small_model(teacher, size=24, backend='reference')
    text = teacher.encode_text(['a red chair'])[0]

    def cosine(fields):
        return F.cosine_similarity(model(GaussianBatch.from_clouds([cloud.replace(**fields)]))[0], text, dim=0)
    fields = {name: value.clone().requires_grad_() for name, value in cloud.fields()}
    grads = dict(zip(fields, torch.autograd.grad(cosine(fields), fields.values())))
    for name in ('quats', 'log_scales', 'opacity_logits', 'sh'):
        direction = grads[name] / grads[name].norm()
        ends = [cosine({name: (cloud.__dict__[name] + sign * 5e-3 * direction).detach()}) for sign in (1, -1)]
        assert float((ends[0] - ends[1]) / 1e-2) == pytest.approx(float(grads[name].norm()), rel=0.05), name
    assert grads['means'].abs().sum(-1).count_nonzero() > 10


def test_descent_on_means_colours_and_opacities_approaches_a_text(teacher, random_cloud):
    model, cloud = small_model(teacher, size=64), ball(random_cloud, 80)
    text = teacher.encode_text(['a red ball'])[0]
    fields = {name: getattr(cloud, name).clone().requires_grad_() for name in ('means', 'opacity_logits', 'sh')}
    optimizer = torch.optim.Adam(fields.values(), lr=0.03)
    cosines = []
    for _ in range(8):
        optimizer.zero_grad()
        embedding = model(GaussianBatch.from_clouds([cloud.replace(**fields)]))[0]
        cosines.append(F.cosine_similarity(embedding, text, dim=0))
        (-cosines[-1]).backward()
        optimizer.step()
    assert all(value.grad.isfinite().all() and value.grad.abs().max() > 0 for value in fields.values())
    assert cosines[-1] > cosines[0] + 0.05
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_predictions_are_unit_vectors_with_the_keys_of_the_batch(teacher, random_cloud):
    inputs = GaussianBatch.from_clouds([ball(random_cloud, seed=i) for i in range(2)])
    model = small_model(teacher)
    first, second = model(inputs, dict(uid=['a', 'b'], label=torch.tensor([4, 7])), mode='predict')
    assert (first.uid, second.uid, int(second.label)) == ('a', 'b', 7)
    assert float(first.embedding.norm()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(second.embedding, F.normalize(model(inputs), dim=-1)[1])


def test_it_has_no_weights_and_the_factor_of_its_teacher(teacher):
    model = small_model(teacher)
    assert not [*model.parameters()] and not model.state_dict()
    assert float(model.logit_scale.exp()) == pytest.approx(teacher.logit_scale)
    with pytest.raises(ValueError, match='no weights to train'):
        model(None, mode='loss')


@pytest.mark.parametrize('options, message', [(dict(pooling='median'), "pooling='median'"),
                                              (dict(num_views=0), 'num_views=0'), (dict(framed=1.5), 'framed=1.5')])
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MultiViewCLIP(nn.Identity(), **options)


def test_encode_views_names_wrong_pixels(teacher):
    with pytest.raises(ValueError, match='encode_image takes uint8'):
        teacher.encode_views(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_the_type_is_registered_and_its_config_chooses_cameras_background_and_pooling(random_cloud):
    cfg = get_config('views_toy-clip_0e_toy-world', {'model.num_views': 2, 'model.elevation': None,
                                                     'model.pooling': 'max', 'model.background': (0.0, 0.0, 1.0)})
    model = MODELS.build(cfg.model)
    assert isinstance(model, MultiViewCLIP) and (model.num_views, model.pooling) == (2, 'max')
    corner = model.render_views([ball(random_cloud)])[0, :, :, 0, 0]
    assert torch.allclose(corner, torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3), atol=0.05)
    assert math.isclose(model.size, 64)
