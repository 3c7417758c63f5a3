"""The classifier: its features, loss and predictions, and the weights it starts from."""
import copy
import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from clipgs_plugin import CLIPGSInferencer, GaussianBatch, get_config, get_model
from clipgs_plugin.models import CLIPGS, ClassifierHead, GSClassifier, GSEncoder
from clipgs_plugin.models.checkpoints import export_point_cloud_checkpoint, read_checkpoint
from clipgs_plugin.models.checkpoints.trained import find_weights

TOKENIZER = dict(type='GSTokenizer', num_groups=4, group_size=4, channels=16, patch_encoder=dict(widths=(8, 8, 16)),
                 refine_widths=(8, 8, 8))
BACKBONE = dict(type='PointBERT', embed_dims=64, depth=2, num_heads=1, in_channels=16)
ENCODER = dict(type='GSEncoder', tokenizer=TOKENIZER, backbone=BACKBONE, embed_dim=24)
BODY = ('patch_encoder', 'refinement', 'position', 'blocks', 'norm')


def encoder_config(**options):
    return {**copy.deepcopy(ENCODER), **options}


@pytest.fixture
def batch(random_cloud):
    return dict(inputs=GaussianBatch.from_clouds([random_cloud(20 + i, i) for i in range(5)]),
                data_samples=dict(label=torch.tensor([0, 2, 1, 1, 0]), uid=list('abcde')))


def smoothed(logits, labels, eps):
    """Cross-entropy of Point-BERT's targets, in a plain loop."""
    total = 0.0
    for row, label in zip(logits.double().log_softmax(-1), labels.tolist()):
        targets = [1 - eps if i == label else eps / (len(row) - 1) for i in range(len(row))]
        total -= sum(target * value.item() for target, value in zip(targets, row))
    return total / len(labels)


@pytest.mark.parametrize('eps', [0.0, 0.2])
def test_the_loss_is_the_published_smoothed_cross_entropy(batch, eps):
    model = GSClassifier(encoder_config(), 3, label_smoothing=eps).eval()
    logits = model(batch['inputs'])
    losses = model(**batch, mode='loss')
    assert losses['loss_cls'].item() == pytest.approx(smoothed(logits, batch['data_samples']['label'], eps), rel=1e-5)
    right = (logits.argmax(1) == batch['data_samples']['label']).float().mean()
    assert float(losses['accuracy']) == pytest.approx(100 * float(right))
    assert not losses['accuracy'].requires_grad


def test_it_learns_its_training_objects(batch):
    torch.manual_seed(0)
    model = GSClassifier(encoder_config(), 3, head=dict(dropout=0.0)).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        losses.append(model(**batch, mode='loss')['loss_cls'])
        losses[-1].backward()
        optimiser.step()
    assert losses[0] > 0.7 and losses[-1] < 0.2


def test_the_head_reads_the_pooled_feature_of_the_backbone_or_the_embedding(batch):
    clouds = batch['inputs']
    pooled = GSClassifier(encoder_config(), 3).eval()
    feature = pooled.encoder.backbone(pooled.encoder.tokenizer(clouds))
    assert feature.shape == (5, 128) and torch.equal(pooled(clouds), pooled.head(feature))
    embedded = GSClassifier(encoder_config(), 3, feature='embedding').eval()
    assert torch.equal(embedded(clouds), embedded.head(embedded.encoder(clouds)))
    assert embedded.head.layers[0].in_features == 24


def test_predictions_are_probabilities_with_label_and_uid(batch):
    model = GSClassifier(encoder_config(), 3).eval()
    predictions = model(**batch, mode='predict')
    torch.testing.assert_close(torch.stack([p.scores for p in predictions]), F.softmax(model(batch['inputs']), -1))
    assert [p.pred_label for p in predictions] == model(batch['inputs']).argmax(1).tolist()
    assert [p.uid for p in predictions] == list('abcde') and [int(p.label) for p in predictions] == [0, 2, 1, 1, 0]


def test_the_default_head_is_that_of_point_mae_and_another_that_of_point_bert():
    assert [type(layer).__name__ for layer in ClassifierHead(768, 40).layers] == [
        'Linear', 'BatchNorm1d', 'ReLU', 'Dropout', 'Linear', 'BatchNorm1d', 'ReLU', 'Dropout', 'Linear']
    point_bert = ClassifierHead(768, 40, widths=(256,), norm=False).layers
    assert {name: tuple(value.shape) for name, value in point_bert.state_dict().items()} == {
        '0.weight': (256, 768), '0.bias': (256,), '3.weight': (40, 256), '3.bias': (40,)}
    assert [layer.p for layer in point_bert if hasattr(layer, 'p')] == [0.5]


def trained_model():
    torch.manual_seed(5)
    return CLIPGS(encoder_config())


def test_a_clipgs_checkpoint_gives_the_encoder_its_weights_and_the_head_none(tmp_path):
    source, path = trained_model(), tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': source.state_dict(), 'meta': {}}, path)
    model = GSClassifier(encoder_config(init_cfg=dict(type='CLIPGSPretrained', checkpoint=str(path))), 3)
    head = copy.deepcopy(model.head.state_dict())
    model.init_weights()
    own = model.encoder.state_dict()
    expected = {name: value for name, value in source.encoder.state_dict().items() if not name.startswith('projection')}
    assert own.keys() == expected.keys() and all(torch.equal(own[name], expected[name]) for name in own)
    assert all(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())
    report, = model.encoder.load_reports
    assert set(report.unused) == {'encoder.projection.weight', 'encoder.projection.bias'}


def test_a_trained_encoder_keeps_its_projection_where_there_is_one(tmp_path):
    source, path = trained_model(), tmp_path / 'a.pth'
    torch.save(source.state_dict(), path)
    encoder = GSEncoder(**{key: value for key, value in encoder_config().items() if key != 'type'},
                        init_cfg=dict(type='CLIPGSPretrained', checkpoint=str(path)))
    encoder.init_weights()
    assert torch.equal(encoder.projection.weight, source.encoder.projection.weight)


@pytest.mark.parametrize(('change', 'match'), [
    (dict(backbone={**BACKBONE, 'depth': 1}), r'not in the encoder: backbone.blocks.blocks.1'),
    (dict(backbone={**BACKBONE, 'depth': 3}), r'missing in the file: backbone.blocks.blocks.2'),
    (dict(backbone={**BACKBONE, 'mlp_ratio': 2.0}), r'wrong shape, type or value: backbone.blocks'),
])
def test_another_encoder_is_refused_and_nothing_loaded(tmp_path, change, match):
    path = tmp_path / 'a.pth'
    torch.save(trained_model().state_dict(), path)
    model = GSClassifier(encoder_config(**change, init_cfg=dict(type='CLIPGSPretrained', checkpoint=str(path))), 3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=match):
        model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.backbone.state_dict(
        prefix='encoder.backbone.').items() if 'blocks.0' in name)


def test_a_shipped_model_is_named_and_an_unknown_one_is_explained():
    config = get_config('classifier_pointbert-nano_clipgs-init_50e_modelnet10').model
    model = GSClassifier(**{key: value for key, value in config.items() if key != 'type'})
    model.init_weights()
    assert len(model.encoder.load_reports[0].loaded) == len(model.encoder.state_dict())
    model.encoder.is_init, model.encoder.init_cfg['checkpoint'] = False, 'clipgs_toyy'
    with pytest.raises(FileNotFoundError, match=r'clipgs_toyy does not exist.*clipgs_toy'):
        model.encoder.init_weights()


@pytest.mark.filterwarnings('ignore')
def test_a_folder_of_save_pretrained_has_the_weights_too(tmp_path):
    get_model('clipgs_toy').save_pretrained(tmp_path / 'shared')
    assert find_weights(tmp_path / 'shared') == tmp_path / 'shared' / 'model.safetensors'
    states = [read_checkpoint(find_weights(name)) for name in (tmp_path / 'shared', 'clipgs_toy')]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value.float(), states[1][name].float()) for name, value in states[0].items()
               if name.startswith('encoder.'))


def test_low_rank_updates_prompts_and_the_head_alone_are_trained(tmp_path, batch):
    path = tmp_path / 'a.pth'
    torch.save(trained_model().state_dict(), path)
    start = dict(type='CLIPGSPretrained', checkpoint=str(path))
    whole, lora, prompts, head = (
        GSClassifier(encoder_config(init_cfg=start, **options), 3) for options in (
            {}, dict(frozen=BODY, lora=dict(rank=2)), dict(frozen=BODY, backbone={**BACKBONE, 'num_prompts': 2}),
            dict(frozen=BODY)))
    for model in (whole, lora, prompts, head):
        model.init_weights()
        model.head.load_state_dict(whole.head.state_dict())
    whole.eval(), lora.eval()
    assert torch.equal(whole(batch['inputs']), lora(batch['inputs']))  # low-rank updates start at zero
    for model, named in (lora, 'lora_'), (prompts, 'prompt_tokens'), (head, None):
        model.train()(**batch, mode='loss')['loss_cls'].backward()
        touched = {name for name, p in model.named_parameters() if p.grad is not None}
        assert touched == {name for name, _ in model.named_parameters()
                           if name.startswith('head.') or (named and named in name)}


@pytest.mark.parametrize('published', [dict(widths=(16,), norm=False), dict(widths=(16, 16))])
def test_a_published_fine_tuned_file_is_the_classifier_as_it_is(tmp_path, batch, published):
    path, points = tmp_path / 'a.pth', {**TOKENIZER, 'point_attributes': ('xyz',)}
    source = GSClassifier(encoder_config(tokenizer={**points, 'refine': False}), 3, published).eval()
    export_point_cloud_checkpoint(source.encoder, path, 'point_bert')
    state = {name.rpartition('transformer_q.')[2]: value for name, value in torch.load(path)['base_model'].items()}
    state |= {f'cls_head_finetune.{name}': value for name, value in source.head.layers.state_dict().items()}
    torch.save({'base_model': state}, path)
    encoder = encoder_config(
        tokenizer=points, init_cfg=dict(type='PointCloudPretrained', checkpoint=str(path), finetuned=True))
    head = dict(init_cfg=dict(type='clipgs_plugin.PublishedHead', checkpoint=str(path)), **published)
    model = GSClassifier(encoder, 3, head)
    model.init_weights()
    model.eval()
    assert torch.equal(model(batch['inputs']), source(batch['inputs']))
    wrong = GSClassifier(encoder_config(), 4, head)
    with pytest.raises(ValueError, match=r'do not fit the head in .*set num_classes'):
        wrong.head.init_weights()


def test_wrong_arguments_and_labels_are_named(batch):
    for options, match in ((dict(num_classes=1), 'num_classes=1'),
                           (dict(num_classes=3, feature='cls'), "feature='cls'"),
                           (dict(num_classes=3, label_smoothing=0.7), 'label_smoothing=0.7')):
        with pytest.raises(ValueError, match=match):
            GSClassifier(encoder_config(), **options)
    model = GSClassifier(encoder_config(), 2).eval()
    with pytest.raises(ValueError, match=r'labels run from 0 to 2, expected 0 to 1'):
        model(**batch, mode='loss')
    with pytest.raises(KeyError, match=r"no 'label'"):
        model(batch['inputs'], mode='loss')
    with pytest.raises(RuntimeError, match='Invalid mode'):
        model(batch['inputs'], mode='both')


def test_the_published_recipe(root):
    cfg = get_config('classifier_pointbert_pointbert-init_300e_modelnet40')
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (5e-4, 0.05)
    assert cfg.optim_wrapper.clip_grad.max_norm == 10 and cfg.train_cfg.max_epochs == 300
    assert [cfg.param_scheduler[i].get(key) for i, key in ((0, 'end'), (1, 'begin'))] == [10, 10]
    assert cfg.model.label_smoothing == 0.2 and cfg.train_dataloader.batch_size == 32
    assert cfg.train_dataloader.dataset.split == 'trainval' and cfg.val_dataloader is None  # no epoch is chosen
    with torch.device('meta'):
        model = GSClassifier(**{key: value for key, value in cfg.model.items() if key != 'type'})
    assert model.head.layers[0].in_features == 768 and model.head.layers[8].out_features == 40
    assert len(model.encoder.backbone.blocks.blocks) == 12


# ---- Sharing

NAMES = ['mug', 'chair', 'night stand']
PIPELINE = [dict(type='LoadGaussians'), dict(type='PackGaussians')]


def config_of(**options):
    return Config(dict(model=dict(type='GSClassifier', num_classes=3, encoder=ENCODER, **options),
                       test_dataloader=dict(dataset=dict(pipeline=PIPELINE))))


@pytest.fixture
def trained_run(tmp_path):
    """A config and a checkpoint whose metadata names the classes, as mmengine's Runner writes it."""
    torch.manual_seed(3)
    model = GSClassifier(encoder_config(), 3)
    meta = dict(dataset_meta=dict(dataset='ModelNetGaussians', classes=NAMES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'epoch_1.pth')
    return config_of(), tmp_path / 'epoch_1.pth', model.eval()


def test_a_shared_classifier_answers_as_before_with_the_names_of_its_classes(trained_run, tmp_path, random_cloud):
    cfg, checkpoint, source = trained_run
    model = get_model(cfg, checkpoint)
    assert model.classes == tuple(NAMES)
    model.save_pretrained(tmp_path / 'shared', repo_id='owner/chairs')
    assert json.loads((tmp_path / 'shared' / 'config.json').read_text())['model']['classes'] == NAMES
    card = (tmp_path / 'shared' / 'README.md').read_text()
    assert '| Classes | 3: mug, chair, night stand |' in card and 'feature-extraction' not in card
    assert "CLIPGSInferencer('owner/chairs')" in card and "classify('chair.ply')" in card

    found = GSClassifier.from_pretrained(tmp_path / 'shared')
    clouds = [random_cloud(30, seed=i) for i in range(3)]
    expected = source(GaussianBatch.from_clouds(clouds))
    assert torch.equal(found(GaussianBatch.from_clouds(clouds)), expected) and not found.training
    element = found(GaussianBatch.from_clouds(clouds), mode='predict')[0]
    assert element.pred_class == NAMES[int(expected[0].argmax())]

    answers = CLIPGSInferencer(found).classify(clouds)
    probabilities = expected.softmax(-1)
    for row, answer in zip(probabilities.tolist(), answers, strict=True):
        assert [name for name, _ in answer] == [name for _, name in sorted(zip(row, NAMES), reverse=True)]
        assert dict(answer) == pytest.approx(dict(zip(NAMES, row)), abs=1e-6)


def test_a_classifier_is_uploaded_by_the_same_code_as_an_encoder(trained_run, monkeypatch):
    uploaded = []
    monkeypatch.setattr('clipgs_plugin.models.pretrained.upload', lambda folder, repo_id, **_: uploaded.append(
        (repo_id, sorted(path.name for path in folder.iterdir()))))
    get_model(*trained_run[:2]).push_to_hub('owner/chairs')
    assert uploaded == [('owner/chairs', ['README.md', 'config.json', 'model.safetensors'])]
    assert GSClassifier.save_pretrained is CLIPGS.save_pretrained and GSClassifier.push_to_hub is CLIPGS.push_to_hub


def test_a_classifier_is_no_encoder_and_an_encoder_no_classifier(trained_run, tmp_path, random_cloud):
    model = get_model(*trained_run[:2])
    model.save_pretrained(tmp_path / 'shared')
    with pytest.raises(ValueError, match='holds a GSClassifier, not a CLIPGS; load it with get_model'):
        CLIPGS.from_pretrained(tmp_path / 'shared')
    clipgs = CLIPGSInferencer(str(tmp_path / 'shared'))
    with pytest.raises(ValueError, match='is a classifier and does not embed into the space of a teacher'):
        clipgs.embed_gaussians(random_cloud(30))
    with pytest.raises(ValueError, match='is a classifier with 3 classes of its own; give the objects alone'):
        clipgs.classify(random_cloud(30), ['mug'])


def test_class_names_are_needed_to_share_and_have_to_fit(tmp_path):
    torch.save(GSClassifier(encoder_config(), 3).state_dict(), tmp_path / 'plain.pth')
    model = get_model(config_of(), tmp_path / 'plain.pth')
    assert model.classes is None
    with pytest.raises(ValueError, match=r'the GSClassifier has no class names; set model\.classes'):
        model.save_pretrained(tmp_path / 'shared')
    assert not (tmp_path / 'shared').exists()
    model.classes = NAMES
    model.save_pretrained(tmp_path / 'shared')
    assert get_model(str(tmp_path / 'shared')).classes == tuple(NAMES)
    for names in (['mug'], ['mug', 'mug', 'chair']):
        with pytest.raises(ValueError, match=r'classes=\[.*\]: expected 3 different names'):
            model.classes = names
