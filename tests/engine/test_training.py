"""Runs of tools/train.py and tools/test.py on a toy that trains in a second."""
import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from clipgs_plugin.engine import launched, load_config
from clipgs_plugin.tools import test as test_tool
from clipgs_plugin.tools import train as train_tool

HERE = Path(__file__).parent
CONFIG = HERE / 'engine_toy_config.py'
TRAIN = HERE.parents[1] / 'tools' / 'train.py'


@pytest.fixture(scope='module', autouse=True)
def toy_on_the_path_and_one_thread():
    """Sums in a thread's order: with equally many threads everywhere, runs can be compared bit by bit."""
    threads, method, scopes = torch.get_num_threads(), mp.get_start_method(), dict(DefaultScope._instance_dict)
    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))
    torch.set_num_threads(threads)
    mp.set_start_method(method, force=True)  # this and the scope are what a Runner changes for good
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


@pytest.fixture(autouse=True)
def runs_apart():
    """mmengine names logs, curves and hubs by the second: runs of one second in one process would share them."""
    for kind in (MMLogger, MessageHub, Visualizer):
        kind._instance_dict.clear()


def train(work_dir, *options, config=CONFIG):
    assert train_tool.main([str(config), '--work-dir', str(work_dir), *options]) == 0
    return torch.load(work_dir / 'epoch_4.pth')  # with weights_only, torch's default


def subprocess_train(work_dir, *options, launcher=()):
    command = [sys.executable, *launcher, str(TRAIN), str(CONFIG), '--work-dir', str(work_dir), *options]
    env = os.environ | {'PYTHONPATH': os.pathsep.join([str(HERE), str(HERE.parents[1])]), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)


def scalars(work_dir):
    lines = [json.loads(line) for path in sorted(work_dir.glob('*/vis_data/scalars.json'))
             for line in path.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('uninterrupted')
    train(work_dir, '--cfg-options', 'default_hooks.logger.interval=1')
    return work_dir


def assert_equal_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_killed_run_resumes_to_the_same_bits(uninterrupted, tmp_path):
    # Iteration 10 of 4 an epoch: in the middle of the third.
    killed = subprocess_train(tmp_path, '--cfg-options', 'custom_hooks.0.iteration=10')
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / 'epoch_2.pth').is_file() and not (tmp_path / 'epoch_3.pth').exists()
    resumed = train(tmp_path, '--resume')
    expected = torch.load(uninterrupted / 'epoch_4.pth')
    assert_equal_weights(resumed['state_dict'], expected['state_dict'])
    assert resumed['meta']['iter'] == expected['meta']['iter'] == 16
    for key, state in expected['optimizer']['state'].items():
        assert torch.equal(resumed['optimizer']['state'][key]['exp_avg'], state['exp_avg'])


def test_learning_rate_is_warmup_times_cosine(uninterrupted):
    found = [line['base_lr'] for line in scalars(uninterrupted)]
    expected = [2e-2 * (0.01 + 0.99 * t / 49) * 0.5 * (1 + math.cos(math.pi * t / 16)) for t in range(16)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


def test_training_logs_the_parts_of_the_loss(uninterrupted):
    lines = scalars(uninterrupted)
    assert all(line['loss'] == pytest.approx(line['loss_text'] + line['loss_image'], rel=1e-4) for line in lines)
    assert lines[0]['logit_scale'] == pytest.approx(1 / 0.07, rel=1e-4)
    assert list(uninterrupted.glob('*/vis_data/events.out.tfevents*'))
    assert list(uninterrupted.glob('best_retrieval*.pth'))


def test_two_processes_train_like_one(tmp_path):
    """Two processes of four objects make the steps of one process of eight: gathered losses, averaged gradients."""
    options = ['model.encoder.dropout=0.', 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=']
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    run = subprocess_train(tmp_path / 'two', '--launcher', 'pytorch', '--cfg-options', *options[:2], options[2] + '4',
                           launcher=launcher)
    assert run.returncode == 0, run.stderr[-3000:]
    one = ['--cfg-options', *options[:2], options[2] + '8']
    assert train_tool.main([str(CONFIG), '--work-dir', str(tmp_path / 'one'), *one]) == 0
    first, second = (torch.load(tmp_path / name / 'epoch_2.pth') for name in ('one', 'two'))
    assert first['meta']['iter'] == second['meta']['iter'] == 4
    for name, value in first['state_dict'].items():
        torch.testing.assert_close(second['state_dict'][name], value, rtol=1e-4, atol=1e-6)


def test_two_processes_validate_the_model_that_is_saved(tmp_path, capfd):
    """Batch norm sees other objects in each process; what chooses the best checkpoint is what the checkpoint gives."""
    options = ['model.encoder.norm=BatchNorm1d', 'train_cfg.max_epochs=1']
    options += [f'{part}_evaluator.{setting}' for part in ('val', 'test')
                for setting in ('_delete_=True', 'type=EngineToyMean')]
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    run = subprocess_train(tmp_path / 'two', '--launcher', 'pytorch', '--cfg-options', *options, launcher=launcher)
    assert run.returncode == 0, run.stderr[-3000:]
    logged = [json.loads(line) for path in (tmp_path / 'two').glob('*/vis_data/scalars.json')
              for line in path.read_text().splitlines()][-1]['toy/mean']
    state = torch.load(tmp_path / 'two' / 'epoch_1.pth')['state_dict']
    assert state['encoder.layers.1.num_batches_tracked'] == 2
    for checkpoint in (tmp_path / 'two').glob('*.pth'):
        assert test_tool.main([str(CONFIG), str(checkpoint), '--work-dir', str(tmp_path), '--json',
                               '--cfg-options', *options]) == 0
        assert json.loads(capfd.readouterr().out)['toy/mean'] == pytest.approx(logged, rel=1e-6)


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='names of threads are read from /proc')
def test_no_thread_of_the_process_group_outlives_a_run(tmp_path, monkeypatch):
    """A thread of gloo that frees a tensor while the interpreter ends aborts the process, once in fifty runs."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    for name, value in {'RANK': '0', 'LOCAL_RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': '127.0.0.1',
                        'MASTER_PORT': port}.items():
        monkeypatch.setenv(name, value)
    before = gloo_threads()  # of other tests in this process
    cfg = load_config(CONFIG, str(tmp_path), {'train_cfg.max_epochs': 1})
    with launched(cfg, 'pytorch') as runner:
        runner.train()
        assert len(gloo_threads()) > len(before)
    assert len(gloo_threads()) == len(before)
    assert not hasattr(runner.model, 'module')


def gloo_threads():
    return [name for path in Path('/proc/self/task').glob('*/comm') if 'gloo' in (name := path.read_text())]


def test_bfloat16_trains_on_the_cpu(uninterrupted, tmp_path):
    found = train(tmp_path, '--amp', '--cfg-options', 'default_hooks.logger.interval=1')
    expected = torch.load(uninterrupted / 'epoch_4.pth')['state_dict']
    difference = [(found['state_dict'][k] - v).abs().max() for k, v in expected.items()]
    assert 0 < max(difference) < 0.05  # other bits, the same way
    assert scalars(tmp_path)[0]['loss'] == pytest.approx(scalars(uninterrupted)[0]['loss'], rel=0.02)


def test_test_tool_prints_json_and_writes_predictions(uninterrupted, tmp_path, capfd):
    out = tmp_path / 'new' / 'predictions.npz'
    arguments = [str(CONFIG), str(uninterrupted / 'epoch_4.pth'), '--work-dir', str(tmp_path)]
    assert test_tool.main([*arguments, '--json', '--out', str(out)]) == 0
    metrics = json.loads(capfd.readouterr().out)
    with np.load(out) as arrays:
        assert arrays['embedding'].shape == (11, 8) and arrays['embedding'].dtype == np.float32
        assert arrays['uid'].tolist() == [f'object-{i}' for i in range(11)]
        assert arrays['label'].tolist() == [i % 2 for i in range(11)]
        embedding = arrays['embedding'].astype(np.float64)
    np.testing.assert_allclose((embedding ** 2).sum(1), 1, rtol=1e-5)
    import engine_toy
    text = np.stack([engine_toy.EngineToyClouds()[i]['text'].double().numpy() for i in range(11)])
    cosine = embedding @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T
    expected = 100 * np.mean([cosine[i].argmax() == i for i in range(11)])
    assert metrics['retrieval/3d_to_text_R@1'] == pytest.approx(expected)
    assert test_tool.main(arguments) == 0
    assert f'retrieval/3d_to_text_R@1 {expected:12.2f}'.split() in [
        line.split() for line in capfd.readouterr().out.splitlines()]


def test_weights_that_do_not_fit_are_refused(uninterrupted, tmp_path):
    content = torch.load(uninterrupted / 'epoch_4.pth')
    del content['state_dict']['logit_scale']
    torch.save(content, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r'RuntimeError: .*logit_scale.*traceback\.txt'):
        test_tool.main([str(CONFIG), str(tmp_path / 'part.pth'), '--work-dir', str(tmp_path)])


def test_checkpoint_of_plain_mmengine_resumes(tmp_path):
    """Without SafeCheckpointHook mmengine pickles its history along, which torch.load refuses by itself."""
    without = ['--cfg-options', 'default_hooks._delete_=True', 'default_hooks.checkpoint.type=CheckpointHook',
               'train_cfg.max_epochs=2']
    assert train_tool.main([str(CONFIG), '--work-dir', str(tmp_path), *without]) == 0
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(tmp_path / 'epoch_2.pth')
    assert train(tmp_path, '--resume', str(tmp_path / 'epoch_2.pth'))['meta']['epoch'] == 4


@pytest.mark.parametrize('arguments, message', [
    (['missing/config.py'], r'config missing/config.py does not exist'),
    (['no-such-config'], 'no-such-config'),
    ([str(CONFIG), '--resume', 'missing.pth'], r'missing.pth does not exist'),
    ([str(CONFIG), '--amp', '--cfg-options', 'optim_wrapper.type=OtherWrapper'], 'OtherWrapper'),
    ([str(CONFIG), '--launcher', 'horse'], 'horse'),
])
def test_wrong_use_of_train_exits_with_2_and_says_why(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        train_tool.main(arguments)
    assert exit_.value.code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('arguments, message', [
    (['missing/config.py', 'x.pth'], 'config missing/config.py does not exist'),
    ([str(CONFIG), 'x.pth'], 'checkpoint x.pth does not exist'),
    ([str(CONFIG), str(CONFIG), '--out', 'x.csv'], 'x.csv: predictions are written as .npz'),
    ([str(CONFIG), str(CONFIG), '--cfg-options', 'test_dataloader=None'], 'no test_dataloader'),
])
def test_wrong_use_of_test_exits_with_2_and_says_why(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        test_tool.main(arguments)
    assert exit_.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize('tool', [train_tool, test_tool])
def test_help_starts_with_a_sentence_and_ends_with_an_example(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(['--help'])
    lines = capsys.readouterr().out.strip().splitlines()
    assert tool.__doc__ in lines and lines[-1].strip().startswith('python tools/')
