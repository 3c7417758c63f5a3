"""Checkpoints that would run code, at every way by which a checkpoint reaches the process.

Three kinds: a pickle with a plain ``__reduce__``, one that goes through each global that the loader knows, and one with
code in the metadata that mmengine executes. Each writes a canary file if it gets its way.
"""
import os
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import random_cloud

from clipgs_plugin import write_gaussians
from clipgs_plugin.io import safe_load
from clipgs_plugin.io.safe_load import STAND_INS, Inert, check_finite, load_file, training_state
from clipgs_plugin.tools import cache_features, convert_checkpoint, embed, make_toy_world
from clipgs_plugin.tools import test as test_tool
from clipgs_plugin.tools import train as train_tool

HERE = Path(__file__).parent
CONFIG = HERE / 'engine_toy_config.py'
QUICKSTART = 'clipgs_pointbert-nano_15e_toy-world'


# Pickles by hand

def named(name: str) -> bytes:
    module, _, attribute = name.rpartition('.')
    return b'c' + f'{module}\n{attribute}\n'.encode()


def text(value: str) -> bytes:
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b'(' + b''.join(arguments) + b'tR'


def build(value: bytes, state: bytes) -> bytes:
    return value + state + b'b'


def dictionary(**values: bytes) -> bytes:
    return b'}' + b''.join(text(key) + value + b's' for key, value in values.items())


GETATTR = named('builtins.getattr')
EXEC = call(GETATTR, call(GETATTR, GETATTR, text('__self__')), text('exec'))  # of the module builtins


def through(name: str, code: str) -> list[bytes]:
    """Pickled values that run code if the global is what its name says."""
    return [build(build(call(named(name)), dictionary(__setstate__=EXEC)), text(code)),
            call(named(name), EXEC, text(code)),
            build(call(named(name)), dictionary(__setstate__=EXEC, __reduce__=EXEC))]


def calls_what_it_returns(name: str, code: str) -> bytes:
    """A pickled call of what the global returns, which no stand-in allows."""
    return call(call(named(name), call(named(name), named(name), text('__self__')), text('exec')), text(code))


def add_to_pickle(path: Path, key: str, values: list[bytes]) -> None:
    """Put pickled values into the dict of a file of torch.save, which stays whole otherwise."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            if name.endswith('data.pkl'):
                assert content[-1:] == b'.'
                content = content[:-1] + text(key) + b']' + b''.join(value + b'a' for value in values) + b's.'
            archive.writestr(name, content)


class Reduced:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f'touch {self.canary}',)


def through_each_global(path: Path, content: dict, canary: Path) -> None:
    torch.save(content, path)
    code = f'open({str(canary)!r}, "w")'
    names = ['mmengine.logging.history_buffer.HistoryBuffer', *STAND_INS]  # the one that held the door open first
    add_to_pickle(path, 'more', [value for name in names for value in through(name, code)])


def by_reduce(path: Path, content: dict, canary: Path) -> None:
    torch.save({**content, 'more': Reduced(canary)}, path)


def in_the_config(path: Path, content: dict, canary: Path) -> None:
    code = f'open({str(canary)!r}, "w").close()\ngpu_ids = [0]'
    torch.save({**content, 'meta': {**content.get('meta', {}), 'config': code}}, path)


KINDS = [through_each_global, by_reduce, in_the_config]


# Ways in

@pytest.fixture(scope='module', autouse=True)
def toy_on_the_path():
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> dict:
    """Checkpoint of a run of the toy config after its first epoch."""
    work_dir = tmp_path_factory.mktemp('run')
    assert train(work_dir, 'train_cfg.max_epochs=1') == 0
    return torch.load(work_dir / 'epoch_1.pth')


def train(work_dir: Path, *options: str, arguments: tuple[str, ...] = (), config: Path = CONFIG) -> int:
    return train_tool.main([str(config), '--work-dir', str(work_dir), *arguments, '--cfg-options', *options])


def resume_file(path: Path) -> None:
    train(path.parent / 'run', 'train_cfg.max_epochs=2', arguments=('--resume', str(path)))


def resume_auto(path: Path) -> None:
    work_dir = path.parent / 'run'
    work_dir.mkdir()
    path.rename(work_dir / 'epoch_1.pth')
    train(work_dir, 'train_cfg.max_epochs=2', arguments=('--resume',))


def load_from(path: Path) -> None:
    train(path.parent / 'run', 'train_cfg.max_epochs=1', f'load_from={path}')


def pretrained(path: Path) -> None:
    train(path.parent / 'run', 'train_cfg.max_epochs=1', 'model.init_cfg.type=Pretrained',
          f'model.init_cfg.checkpoint={path}')


def point_cloud_pretrained(path: Path) -> None:
    config = path.with_name('point_cloud.py')
    config.write_text(f'''
_base_ = [{str(CONFIG)!r}]
model = dict(encoder=dict(
    _delete_=True, type='GSEncoder', embed_dim=8, tokenizer=dict(type='GSTokenizer', num_groups=2, group_size=2,
                                                                 channels=64),
    backbone=dict(type='PointBERT', embed_dims=64, depth=1, num_heads=1, in_channels=64),
    init_cfg=dict(type='PointCloudPretrained', checkpoint={str(path)!r})))
''')
    train(path.parent / 'run', 'train_cfg.max_epochs=1', config=config)


def test_program(path: Path) -> None:
    test_tool.main([str(CONFIG), str(path), '--work-dir', str(path.parent / 'run')])


def embed_program(path: Path) -> None:
    write_gaussians(random_cloud(20), path.with_name('object.ply'))
    embed.main([str(path.with_name('object.ply')), '-o', str(path.with_name('index.npz')), '--model', QUICKSTART,
                '--checkpoint', str(path)])


def convert_program(path: Path) -> None:
    convert_checkpoint.main([str(path), str(path.with_name('converted.safetensors'))])


def teacher_program(path: Path) -> None:
    world = path.parent / 'world'
    make_toy_world.main([str(world), '--num-train', '1', '--num-val', '1', '--num-test', '1'])
    cache_features.main([str(world), '--teacher', 'toy-clip', '--pretrained', str(path)])


test_program.__test__ = False
TRAINING = [resume_file, resume_auto, load_from, pretrained, test_program]
WEIGHTS = [point_cloud_pretrained, embed_program, convert_program, teacher_program]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('enter', [*TRAINING, *WEIGHTS])
def test_no_checkpoint_runs_code(kind, enter, checkpoint, tmp_path):
    path, canary = tmp_path / 'hostile.pth', tmp_path / 'canary'
    kind(path, checkpoint, canary)
    if enter in TRAINING and kind is not by_reduce:
        enter(path)  # its tensors are those of a real run, and what is hostile has no effect
    else:
        refused = r'could run code|family|is not whole|download it again|fit the model|not the weights|^1$'
        with pytest.raises((ValueError, SystemExit), match=refused):
            enter(path)
    assert not canary.exists()


@pytest.mark.parametrize('name', STAND_INS)
def test_each_known_global_is_inert(name, checkpoint, tmp_path):
    path, canary = tmp_path / 'hostile.pth', tmp_path / 'canary'
    torch.save({'weight': torch.ones(2)}, path)
    code = f'open({str(canary)!r}, "w")'
    add_to_pickle(path, 'more', through(name, code))
    content = load_file(path)
    assert not canary.exists() and torch.equal(content['weight'], torch.ones(2))
    assert len(content['more']) == 3 and all(isinstance(value, Inert) for value in content['more'])
    assert all(vars(value).keys() <= {'code'} for value in content['more'])
    add_to_pickle(path, 'yet', [calls_what_it_returns(name, code)])
    with pytest.raises(ValueError, match=r'could run code|not a checkpoint'):
        load_file(path)
    assert not canary.exists()


def test_the_exploit_works_on_a_loader_that_allows_getattr(checkpoint, tmp_path):
    """The hostile file is hostile: with mmengine's real globals allowed, it writes its canary."""
    from mmengine.logging import HistoryBuffer
    path, canary = tmp_path / 'hostile.pth', tmp_path / 'canary'
    through_each_global(path, checkpoint, canary)
    with torch.serialization.safe_globals([HistoryBuffer, getattr]), pytest.raises(TypeError, match='no len'):
        torch.load(path)
    assert canary.exists()


def test_other_addresses_than_files_and_http_are_refused():
    from mmengine.runner import CheckpointLoader

    from clipgs_plugin.engine.launch import checked_checkpoints
    with checked_checkpoints():
        for address in ('torchvision://resnet50', 'open-mmlab://x', 's3://bucket/x.pth', 'mmcls://x'):
            with pytest.raises(ValueError, match=f'{address}: expected a file or an http'):
                CheckpointLoader.load_checkpoint(address, 'cpu', logger=None)


def test_a_downloaded_checkpoint_is_checked_too(checkpoint, tmp_path, monkeypatch):
    from clipgs_plugin.engine.launch import load_from_checked_file
    canary = tmp_path / 'canary'
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file',
                        lambda url, path, progress: by_reduce(Path(path), checkpoint, canary))
    with pytest.raises(ValueError, match='could run code'):
        load_from_checked_file('https://example.org/models/epoch_1.pth?download=true')
    assert (tmp_path / 'hub' / 'checkpoints' / 'epoch_1.pth').is_file() and not canary.exists()


# Damage

def test_numbers_of_numpy_come_back_and_the_rest_is_dropped(tmp_path):
    import argparse

    import numpy as np
    from mmengine.logging import HistoryBuffer
    path = tmp_path / 'plain.pth'
    info = {'best': np.float64(0.25), 'epoch': np.int64(3), 'hit': np.bool_(True), 'names': ['a', ('b', 1)],
            'array': np.ones(3)}
    torch.save({'state_dict': {'w': torch.ones(1)}, 'meta': {'epoch': 3, 'args': argparse.Namespace(lr=1)},
                'message_hub': {'log_scalars': {'loss': HistoryBuffer([1.0], [1])}, 'runtime_info': info,
                                'resumed_keys': {'best': True, 'array': True}}}, path)
    found = training_state(load_file(path), path)
    assert found['meta'] == {'epoch': 3}
    assert found['message_hub']['runtime_info'] == {'best': 0.25, 'epoch': 3, 'hit': True, 'names': ['a', ('b', 1)]}
    assert found['message_hub']['resumed_keys'] == {'best': True} and not found['message_hub']['log_scalars']


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('enter', [resume_file, load_from, test_program])
def test_weights_that_are_not_finite_are_refused_by_name(enter, bad, checkpoint, tmp_path):
    state = {key: value.clone() for key, value in checkpoint['state_dict'].items()}
    state['encoder.layers.0.weight'][3, 2] = bad
    torch.save({**checkpoint, 'state_dict': state}, tmp_path / 'bad.pth')
    with pytest.raises(ValueError, match=r'bad\.pth: tensor encoder\.layers\.0\.weight holds NaN or infinite'):
        enter(tmp_path / 'bad.pth')


def test_a_tensor_of_more_values_than_its_file_is_refused():
    with pytest.raises(ValueError, match=r'tensor w of shape .* more values than the file'):
        check_finite({'w': torch.ones(1).expand(2 ** 40)}, 'x.pth')


def test_changed_bytes_inside_a_tensor_are_noticed(checkpoint, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save({'weight': torch.ones(5000)}, path)
    data = bytearray(path.read_bytes())
    start = data.index(struct.pack('<f', 1.0) * 100)
    data[start:start + 3000] = bytes(3000)
    path.write_bytes(data)
    assert torch.load(path)['weight'].min() == 0  # torch itself says nothing
    with pytest.raises(ValueError, match=r'epoch_1\.pth: .*data/0 in it does not match its checksum'):
        load_file(path)


def test_an_archive_that_inflates_is_refused(tmp_path):
    path = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('bomb/data.pkl', bytes(10 ** 7))
    with pytest.raises(ValueError, match='its archive is compressed'):
        load_file(path)


def test_metadata_that_repeats_itself_is_read_in_linear_time(tmp_path):
    value = b']'
    for i in range(60):  # 2^60 values to whoever walks them one by one
        value = b']' + value + b'q' + bytes([i]) + b'a' + b'h' + bytes([i]) + b'a'
    torch.save({'state_dict': {}}, tmp_path / 'laughs.pth')
    add_to_pickle(tmp_path / 'laughs.pth', 'meta', [value])
    content = load_file(tmp_path / 'laughs.pth')
    assert len(training_state(content, 'laughs.pth')['meta']) == 1
    content['meta'] = []
    for _ in range(100_000):
        content['meta'] = [content['meta']]
    with pytest.raises(ValueError, match='nested too deeply'):
        training_state(content, 'deep.pth')
    while content['meta']:  # or its end would be too deep for the interpreter
        content['meta'] = content['meta'][0]


def test_errors_of_memory_stay_what_they_are(tmp_path, monkeypatch):
    torch.save({'w': torch.ones(1)}, tmp_path / 'w.pth')

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError
    monkeypatch.setattr(safe_load.torch, 'load', full)
    with pytest.raises(torch.OutOfMemoryError):
        load_file(tmp_path / 'w.pth')
