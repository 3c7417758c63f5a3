import logging
import random
import sys
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from torch import nn

from clipgs_plugin.engine import ModelSummaryHook, ProgressBarHook, SafeCheckpointHook, SeedHook
from clipgs_plugin.models import CLIPGS, GSEncoder, GSTokenizer, PointBERT
from clipgs_plugin.registry import HOOKS


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def draw_at(seed, iteration, hook_seed=None):
    SeedHook(hook_seed).before_train_iter(SimpleNamespace(seed=seed, iter=iteration, epoch=0), 0)
    return draws()


def test_seed_depends_on_seed_and_iteration_and_on_nothing_before():
    first = draw_at(5, 17)
    random.random(), torch.rand(7), np.random.rand(2)
    assert draw_at(5, 17) == first
    assert draw_at(9, 17, hook_seed=5) == first
    for other in (draw_at(6, 17), draw_at(5, 18)):
        assert all(a != b for a, b in zip(first, other))


def test_ranks_and_epochs_draw_differently(monkeypatch):
    first = draw_at(5, 0)
    SeedHook().before_train_epoch(SimpleNamespace(seed=5, epoch=0, iter=0))
    assert draws()[0] != first[0]
    monkeypatch.setattr('clipgs_plugin.engine.hooks.get_rank', lambda: 1)
    assert draw_at(5, 0)[0] != first[0]


def test_checkpoint_loads_with_plain_torch_load(tmp_path):
    from mmengine.logging import HistoryBuffer
    info = {'best': np.float64(1.5), 'counts': [np.int64(2), (np.float32(0.5), 'x')], 'array': np.arange(3), 'n': 4}
    keys = OrderedDict((key, True) for key in [*info, 'loss'])
    checkpoint = {
        'state_dict': {'w': torch.ones(2)}, 'meta': {'epoch': 3, 'dataset_meta': {'classes': ('a', np.str_('b'))}},
        'message_hub': {'log_scalars': {'loss': HistoryBuffer([1.0], [1])}, 'runtime_info': OrderedDict(info),
                        'resumed_keys': keys}}
    path = tmp_path / 'checkpoint.pth'
    torch.save(checkpoint, path)
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(path)
    SafeCheckpointHook().before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, path)
    loaded = torch.load(path)
    assert loaded['meta'] == {'epoch': 3, 'dataset_meta': {'classes': ('a', 'b')}}
    assert loaded['message_hub']['runtime_info'] == {'best': 1.5, 'counts': [2, (0.5, 'x')], 'array': [0, 1, 2], 'n': 4}
    assert list(loaded['message_hub']['resumed_keys']) == list(info)
    assert len(keys) == len(info) + 1  # the running message hub's own dict is left alone


def test_progress_bar_hands_the_log_streams_back():
    stream = sys.__stdout__
    runner = SimpleNamespace(max_iters=2, iter=0, epoch=0, max_epochs=1, logger=logging.Logger('bar'))
    runner.logger.addHandler(logging.StreamHandler(stream))
    hook = ProgressBarHook(enabled=True)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, outputs={'loss': torch.tensor(1.0)})
    assert hook._bar.tasks[0].completed == 1 and hook._bar.tasks[0].fields['loss'] == '1.0000'
    hook.after_train(runner)
    assert hook._bar is None and runner.logger.handlers[0].stream is stream
    quiet = ProgressBarHook(enabled=False)
    quiet.before_train(runner)
    quiet.after_train_iter(runner, 0, outputs={'loss': 1.0})
    assert quiet._bar is None


# The summary of a model


def summary(model, caplog, iteration=0, load_from=None):
    """The lines that the hook logs."""
    logger = logging.Logger('summary')
    logger.addHandler(caplog.handler)
    ModelSummaryHook().before_train(SimpleNamespace(
        model=model, logger=logger, iter=iteration, epoch=iteration // 4, cfg=dict(load_from=load_from)))
    return caplog.messages[-1].split('\n')


def tuned(**kwargs):
    tokenizer = GSTokenizer(num_groups=8, group_size=6, channels=24, refine_widths=(8, 8, 16))
    return CLIPGS(GSEncoder(tokenizer, PointBERT(24, 2, 4, 24, num_prompts=3), 16, lora=dict(rank=2), **kwargs))


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel], ids=['bare', 'wrapped'])
def test_summary_tells_what_is_trained_and_where_from(wrap, caplog):
    model = tuned(frozen=('patch_encoder', 'blocks'))
    encoder = model.encoder
    backbone = encoder.backbone
    position = [f'backbone.{name}' for name in ('cls_token', 'cls_pos')]
    # A report has buffers too, and of what was widened the name.
    loaded = [name for name, _ in encoder.tokenizer.named_parameters('tokenizer') if 'patch_encoder' in name]
    loaded += ['tokenizer.patch_encoder.first_conv.1.running_mean', 'backbone.reduce_dim.weight',
               'backbone.reduce_dim.bias', *position]
    encoder.load_reports = [SimpleNamespace(path='weights/a.pt', family='point_bert', loaded=loaded)]
    backbone.pos_embed[0].requires_grad_(False)

    blocks = 2 * (24 * 72 + 24 * 24 + 24 + 2 * 24 * 96 + 96 + 24 + 4 * 24)
    lora = 2 * 2 * (24 + 72 + 24 + 24 + 2 * (24 + 96))
    patches = count(encoder.tokenizer.patch_encoder) + 24 * 24 + 24
    position, free = 24 + 24 + 3 * 128 + 128 + 128 * 24 + 24, 24 + 24 + 128 * 24 + 24
    refinement = count(encoder.tokenizer.refinement)
    trainable = free + refinement + 48 + 48 * 16 + 16 + 3 * 24 + lora + 1
    rows = {
        'patch_encoder': (patches, 'frozen', 'checkpoint weights/a.pt (point_bert)'),
        'refinement': (refinement, 'trainable', 'fresh'),
        'position': (position, f'{free:,} trainable', '2 of 6 tensors from weights/a.pt (point_bert), 4 fresh'),
        'blocks': (blocks, 'frozen', 'fresh'),
        'norm': (48, 'trainable', 'fresh'),
        'projection': (48 * 16 + 16, 'trainable', 'fresh'),
        'prompts': (3 * 24, 'trainable', 'fresh'),
        'lora': (lora, 'trainable', 'fresh'),
        'others': (1, 'trainable', 'fresh'),
    }
    lines = summary(wrap(model), caplog)
    total = sum(number for number, *_ in rows.values())
    assert lines[0] == f'CLIPGS: {trainable:,} of {total:,} parameters are trainable'
    assert lines[1].split() == ['part', 'parameters', 'state', 'initial', 'weights']
    cells = {line.split()[0]: line for line in lines[2:]}
    assert list(cells) == list(rows)
    for part, (number, state, origin) in rows.items():
        assert cells[part].split(maxsplit=2)[1] == f'{number:,}'
        assert cells[part].endswith(f'  {origin}') and f'  {state} ' in cells[part], part
    for title, texts in (('state', [state for _, state, _ in rows.values()]),
                         ('initial weights', [origin for *_, origin in rows.values()])):  # aligned
        assert {line.rindex(text) for line, text in zip(lines[2:], texts)} == {lines[1].index(title)}


def test_summary_tells_of_pretrained_checkpoints_and_that_the_outer_one_stays(caplog):
    model = tuned(init_cfg=[dict(type='Pretrained', checkpoint='encoder.pth')])
    model.encoder.backbone.init_cfg = dict(type='mmengine.Pretrained', checkpoint='backbone.pth')
    model.encoder.tokenizer.init_cfg = dict(type='Constant', val=0.0, layer='Conv1d')
    model.encoder.load_reports = [SimpleNamespace(path='a.pt', family='uni3d', loaded=['backbone.norm.weight'])]
    lines = summary(model, caplog)
    ends = {line.split()[0]: line for line in lines[2:]}
    assert ends['blocks'].endswith('  checkpoint encoder.pth')
    assert ends['norm'].endswith('1 of 2 tensors from a.pt (uni3d), 1 of 2 tensors from encoder.pth')
    assert ends['others'].endswith('  fresh')
    model.init_cfg = dict(type='Pretrained', checkpoint='all.pth')
    assert all(line.endswith('  checkpoint all.pth') for line in summary(model, caplog)[2:])


def test_summary_says_that_a_run_goes_on(caplog):
    model = nn.Linear(3, 2)
    assert summary(model, caplog) == ['Linear: 8 of 8 parameters are trainable']
    assert summary(model, caplog, 8, 'epoch_2.pth') == [
        'Linear: 8 of 8 parameters are trainable; resumed from epoch_2.pth at epoch 2, iteration 8']
    assert summary(model, caplog, 8)[0].endswith('trainable; resumed at epoch 2, iteration 8')
    assert summary(model, caplog, 0, 'a.pth')[0].endswith('; weights loaded from a.pth after the initialisation')


def test_summary_of_a_model_without_a_gs_encoder_is_its_totals(caplog):
    model = CLIPGS(BaseModule())
    model.encoder.layer = nn.Linear(3, 2)
    model.encoder.layer.bias.requires_grad_(False)
    assert summary(model, caplog) == ['CLIPGS: 7 of 9 parameters are trainable']


def test_hooks_of_a_child_config_come_on_top_of_those_of_the_default_runtime(root, tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(f"""_base_ = [{str(root / 'configs' / '_base_' / 'default_runtime.py')!r}]
custom_hooks = [dict(type='EMAHook')]
default_hooks = dict(progress_bar=dict(enabled=False))
""")
    config = Config.fromfile(path)
    built = {type(HOOKS.build(cfg)) for cfg in config.default_hooks.values()}
    assert built > {SafeCheckpointHook, SeedHook, ProgressBarHook, ModelSummaryHook}
    assert [hook.type for hook in config.custom_hooks] == ['EMAHook']
    assert HOOKS.build(config.default_hooks.progress_bar).enabled is False
