"""Image transformers over tokens, compared with timm's own models, and the loading of their weights."""
import functools

import pytest
import timm
import torch
from formulas import gelu, randomise_parameters, tokens
from mmengine.runner import Runner
from safetensors.torch import save_file

from clipgs_plugin.models import GSEncoder, GSTokenizer, Tokens
from clipgs_plugin.models.backbones.timm_transformer import TimmTransformer
from clipgs_plugin.registry import MODELS

# Name and number of blocks kept. They cover: a class token as the feature; registers, layer scale, no class token and
# the norm after the mean; attention pooling; RMS norms; EVA with gated MLPs, the norm after the mean and an unused
# class token; EVA with a norm before the blocks; all other variants of EVA at once, with rotary attention.
MODEL_NAMES = {'test_vit': None, 'test_vit2': None, 'test_vit3': 2, 'test_vit4': 2, 'vit_tiny_patch16_224': 2,
               'eva02_tiny_patch14_224': 2, 'vit_pe_core_tiny_patch16_384': 2, 'vit_small_plus_patch16_dinov3': 2}
SMALL = ('test_vit', 'test_vit2')


@functools.cache
def image_model(name):
    """Build timm's model with random weights."""
    return randomise_parameters(timm.create_model(name), seed=len(name))


def weights_of(name):
    return {key: value.clone() for key, value in image_model(name).state_dict().items()}


@pytest.fixture
def file_of(tmp_path):
    """Write a file with the weights of a model of timm, some of them changed or left out."""
    def write(name, but=(), **changed):
        path = tmp_path / f'{name}.safetensors'
        state = {**weights_of(name), **changed}
        save_file({key: value for key, value in state.items() if not key.startswith(tuple(but))}, path)
        return path
    return write


def backbone_of(name, **options):
    module = TimmTransformer(name, 24, depth=MODEL_NAMES[name], **options)
    module.load_image_weights(weights_of(name))
    return module.eval()


@functools.cache
def shared(name):
    """Build a backbone that no test changes."""
    return backbone_of(name)


def formula(module, tokens, depth):
    """Compute the feature with timm's image model in float64, and only the new layers from the backbone."""
    model = image_model(module.name)
    w = {key: value.double() for key, value in module.state_dict().items()}
    image = {key: value.double() for key, value in model.state_dict().items()}
    hidden = gelu(tokens.centers.double() @ w['pos_embed.0.weight'].T + w['pos_embed.0.bias'])
    x = tokens.features.double() @ w['lift.weight'].T + w['lift.bias']
    x = x + hidden @ w['pos_embed.2.weight'].T + w['pos_embed.2.bias']
    b, first = len(x), []
    if 'cls_token' in image:
        first.append(image['cls_token'] + w['cls_pos'])
    if 'reg_token' in image:
        first.append(image['reg_token'])
    x = torch.cat([token.expand(b, -1, -1) for token in first] + [x], dim=1)
    model.double()
    try:
        with torch.no_grad():
            x = model.norm_pre(x)
            if 'prompt_tokens' in w:
                x = torch.cat([x, w['prompt_tokens'].expand(b, -1, -1)], dim=1)
            for block in model.blocks[:depth]:
                x = block(x)
            if 'prompt_tokens' in w:
                x = x[:, :-w['prompt_tokens'].shape[1]]
            x = model.norm(x)
            if model.attn_pool is None:
                return model.forward_head(x, pre_logits=True).float()
            return x[:, model.num_prefix_tokens:].mean(1).float()
    finally:
        model.float()


@pytest.mark.parametrize('name', MODEL_NAMES)
def test_blocks_and_norms_match_timm(name):
    module = shared(name)
    found, expected = module(tokens()), formula(module, tokens(), MODEL_NAMES[name])
    assert found.shape == (2, module.out_channels) and expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize('name', MODEL_NAMES)
def test_masked_tokens_change_nothing(name):
    module = shared(name)
    some = tokens(masked=[4, 10])
    expected = module(Tokens(some.features[:1, :4], some.centers[:1, :4], None))[0]
    torch.testing.assert_close(module(some)[0], expected, atol=1e-5, rtol=0)
    garbage = some.features.clone()
    garbage[0, 4:] = 1e4
    torch.testing.assert_close(module(some._replace(features=garbage))[0], expected, atol=1e-5, rtol=0)
    assert (module(some._replace(features=garbage, mask=None))[0] - expected).abs().max() > 1e-2


@pytest.mark.parametrize('name', SMALL)
def test_prompts_are_attended_and_not_pooled(name):
    module = backbone_of(name, num_prompts=3)
    torch.nn.init.normal_(module.prompt_tokens)
    torch.testing.assert_close(module(tokens()), formula(module, tokens(), None), atol=3e-5, rtol=0)
    assert (module(tokens()) - shared(name)(tokens())).abs().max() > 1e-2
    some = tokens(masked=[4, 10])
    alone = Tokens(some.features[:1, :4], some.centers[:1, :4], None)
    torch.testing.assert_close(module(some)[0], module(alone)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', MODEL_NAMES)
def test_order_of_patches_changes_nothing_but_centres_do(name):
    module, some, order = shared(name), tokens(), torch.randperm(10)
    shuffled = Tokens(some.features[:, order], some.centers[:, order], None)
    torch.testing.assert_close(module(shuffled), module(some), atol=1e-5, rtol=0)
    assert (module(some._replace(centers=some.centers[:, order])) - module(some)).abs().max() > 1e-4


def test_backbone_has_the_common_interface():
    module = shared('vit_small_plus_patch16_dinov3')
    features = module.forward_features(tokens())
    assert module.input == 'tokens' and module.in_channels == 24
    assert features.shape == (2, 11, 384)  # without the registers
    assert torch.equal(module.pool(features), module(tokens()))


@pytest.mark.parametrize('name', SMALL)
def test_recomputed_blocks_have_the_same_gradients(name):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = backbone_of(name, grad_checkpointing=recompute).train()
        calls = []
        module.blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        module(tokens(masked=[4, 10])).square().sum().backward()
        assert len(calls) == 1 + recompute
        gradients.append({key: value.grad for key, value in module.named_parameters()})
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value, atol=0, rtol=0, msg=key)
        assert value.abs().max() > 0, key


@pytest.mark.parametrize('depth', [None, 3])
def test_drop_path_grows_to_the_last_kept_block(depth):
    module = TimmTransformer('test_vit', drop_path_rate=0.3, depth=depth)
    rates = [getattr(block.drop_path2, 'drop_prob', 0.0) for block in module.blocks]
    count = depth or 6
    assert rates == pytest.approx([0.3 * i / (count - 1) for i in range(count)])
    module = TimmTransformer('test_vit', 24, drop_path_rate=0.9).train()
    assert not torch.equal(module(tokens()), module(tokens()))


@pytest.mark.parametrize('name', ['test_vit', 'test_vit4', 'vit_pe_core_tiny_patch16_384'])
def test_every_parameter_belongs_to_one_part(name):
    parts = GSEncoder(GSTokenizer(channels=24), TimmTransformer(name, 24, depth=1, num_prompts=1), 8).parts()
    names = {name.removeprefix('backbone.') for part in ('position', 'blocks', 'norm') for name in parts[part]}
    assert {key for key in weights_of(name) if key.startswith(('blocks.0.', 'norm', 'fc_norm', 'cls_', 'reg_'))} \
        <= names
    assert {'backbone.lift.weight', 'backbone.lift.bias'} <= set(parts['patch_encoder'])


# Loading


def kept(name, depth=None):
    """Return the tensors that an image model contributes to a backbone."""
    return {key: value for key, value in weights_of(name).items()
            if key.startswith(('cls_token', 'reg_token', 'norm', 'fc_norm'))
            or (key.startswith('blocks.') and (depth is None or int(key.split('.')[1]) < depth))}


def assert_holds(module, expected, prefix=''):
    state = module.state_dict()
    for key, value in expected.items():
        assert torch.equal(state[prefix + key], value), key


@pytest.mark.parametrize('caller', ['model', 'runner'])
@pytest.mark.parametrize('name', ['test_vit', 'eva02_tiny_patch14_224'])
def test_weights_of_the_file_survive_other_initialisation(name, caller, file_of, tmp_path):
    overwriting = dict(type='Constant', layer=['Linear', 'Conv1d', 'LayerNorm', 'BatchNorm1d'], val=0.5, bias=0.5)
    model = dict(
        type='CLIPGS', init_cfg=overwriting,
        encoder=dict(
            type='GSEncoder', embed_dim=8, init_cfg=overwriting,
            tokenizer=dict(type='GSTokenizer', num_groups=8, group_size=6, channels=24),
            backbone=dict(type='TimmTransformer', name=name, in_channels=24, depth=2, init_cfg=overwriting,
                          checkpoint_path=str(file_of(name)))))
    if caller == 'model':
        model = MODELS.build(model)
        model.init_weights()
    else:
        runner = Runner(model, str(tmp_path), default_scope='clipgs_plugin', log_level='ERROR',
                        default_hooks=dict(logger=None))
        runner._init_model_weights()
        model = runner.model
    assert_holds(model.encoder.backbone, kept(name, 2))
    assert (model.encoder.backbone.lift.weight == 0.5).all()  # the initialiser ran


def test_second_initialisation_keeps_trained_weights(file_of):
    module = TimmTransformer('test_vit', 24, checkpoint_path=file_of('test_vit'))
    module.init_weights()
    assert_holds(module, kept('test_vit'))
    torch.nn.init.ones_(module.cls_token)
    module.init_weights()
    assert (module.cls_token == 1).all()


def test_trained_model_builds_without_the_file(tmp_path):
    module = TimmTransformer('test_vit', 24, checkpoint_path=tmp_path / 'gone.pth')
    module.load_state_dict(shared('test_vit').state_dict())
    assert_holds(module, kept('test_vit'))
    with pytest.raises(FileNotFoundError, match=r'gone\.pth: file not found'):
        module.init_weights()


def test_weights_load_beside_low_rank_updates(file_of):
    encoder = GSEncoder(GSTokenizer(channels=24), TimmTransformer('test_vit', 24, checkpoint_path=file_of('test_vit')),
                        8, lora=dict(rank=2))
    encoder.init_weights()
    assert_holds(encoder, kept('test_vit'), 'backbone.')
    assert any('lora_' in key for key in encoder.state_dict())


@pytest.mark.parametrize('wrapper', [None, 'state_dict', 'model'])
def test_weights_load_from_files_of_torch(wrapper, tmp_path):
    path = tmp_path / 'model.pth'
    torch.save(weights_of('test_vit2') if wrapper is None else {wrapper: weights_of('test_vit2')}, path)
    module = TimmTransformer('test_vit2', 24, checkpoint_path=path)
    module.init_weights()
    assert_holds(module, kept('test_vit2'))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network and an empty download cache."""
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))


def test_pretrained_weights_match_those_of_timm(file_of, monkeypatch, offline):
    create, path = timm.create_model, str(file_of('test_vit'))

    def from_the_file(name, pretrained=False, **options):  # instead of a download
        overlay = dict(pretrained_cfg_overlay=dict(file=path)) if pretrained else {}
        return create(name, pretrained=pretrained, **overlay, **options)

    monkeypatch.setattr(timm, 'create_model', from_the_file)
    module = TimmTransformer('test_vit.r160_in1k', 24, pretrained=True, depth=3)
    module.init_weights()
    assert_holds(module, kept('test_vit', 3))


def test_error_of_a_failed_download_names_the_remedy(offline):
    module = TimmTransformer('test_vit.r160_in1k', 24, pretrained=True)
    with pytest.raises(FileNotFoundError, match=r'weights of test_vit\.r160_in1k .*set checkpoint_path'):
        module.init_weights()


# Errors


def refused(path, match, name='test_vit', **options):
    module = TimmTransformer(name, 24, checkpoint_path=path, **options)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        module.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_weights_that_do_not_fit_are_refused(file_of, tmp_path):
    refused(file_of('test_vit', but=('norm.bias',)), r'test_vit\.safetensors: not the weights of test_vit .*'
                                                     r'missing: norm\.bias\)')
    refused(file_of('test_vit', but=('blocks.5.',)), r'missing: blocks\.5\.norm1\.weight, .* and 8 more')
    deeper = {key.replace('blocks.5.', 'blocks.6.'): value for key, value in weights_of('test_vit').items()
              if key.startswith('blocks.5.')}
    refused(file_of('test_vit', **deeper), r'not in the model: blocks\.6\.')
    refused(file_of('test_vit', **deeper), r'not in the model: blocks\.6\.', depth=3)
    refused(file_of('test_vit', reg_token=torch.zeros(1, 4, 64)), r'not in the model: reg_token')
    refused(file_of('test_vit', cls_token=torch.zeros(1, 1, 96)),
            r'of another shape: cls_token \(1, 1, 96\) for \(1, 1, 64\)')
    refused(file_of('test_vit3'), r'missing: cls_token', name='test_vit')
    save_file({'blocks.blocks.0.norm1.weight': torch.ones(64)}, tmp_path / 'other.safetensors')
    refused(tmp_path / 'other.safetensors', r'missing: cls_token, blocks\.0\.norm1\.weight')


def test_file_may_hold_or_lack_blocks_beyond_the_depth(file_of):
    for path in (file_of('test_vit'), file_of('test_vit', but=('blocks.3.', 'blocks.5.'))):
        module = TimmTransformer('test_vit', 24, checkpoint_path=path, depth=3)
        module.init_weights()
        assert_holds(module, kept('test_vit', 3))
        assert len(module.blocks) == 3


@pytest.mark.parametrize(('name', 'match'), [
    ('vit_smal_patch16_224', r"name='vit_smal_patch16_224': timm .* has no such model; .*\bvit_small_patch16_224\b"),
    ('test_vit.nope', r"name='test_vit.nope'.*\btest_vit\.r160_in1k\b"),
    ('qqqqqqqqqqqq', r"see timm\.list_models"),
    ('test_resnet', r"name='test_resnet' is a ResNet: expected a VisionTransformer or an Eva"),
])
def test_names_of_other_models_are_refused(name, match):
    with pytest.raises(ValueError, match=match):
        TimmTransformer(name)


def test_contradicting_options_are_refused():
    with pytest.raises(ValueError, match='depth=7: test_vit has 6 blocks, expected 1 to 6'):
        TimmTransformer('test_vit', depth=7)
    with pytest.raises(ValueError, match='depth=0'):
        TimmTransformer('test_vit', depth=0)
    with pytest.raises(ValueError, match=r"pretrained=True and checkpoint_path='a\.pth' are two sources"):
        TimmTransformer('test_vit', pretrained=True, checkpoint_path='a.pth')
    with pytest.raises(ValueError, match='timm has no weights for vit_giant_patch14_224'):
        TimmTransformer('vit_giant_patch14_224', pretrained=True)
