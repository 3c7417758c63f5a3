"""Safe reading of checkpoint files."""
import logging
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clipgs_plugin.models.checkpoints import read_checkpoint


class Malicious:
    def __reduce__(self):
        return (logging.error, ('executed',))


def test_nothing_in_a_file_is_executed(tmp_path, caplog):
    path = tmp_path / 'evil.pt'
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': Malicious()}, path)
    with pytest.raises(ValueError, match=r'holds logging\.error, which could run code, .* --trust-pickle'):
        read_checkpoint(path)
    assert 'executed' not in caplog.text


def test_files_without_named_tensors_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.pt: file not found'):
        read_checkpoint(tmp_path / 'absent.pt')
    with pytest.raises(IsADirectoryError, match='is a folder'):
        read_checkpoint(tmp_path)
    torch.save({'epoch': 3}, tmp_path / 'empty.pt')
    with pytest.raises(ValueError, match='holds no named tensors'):
        read_checkpoint(tmp_path / 'empty.pt')
    torch.save([torch.ones(1)], tmp_path / 'list.pt')
    with pytest.raises(ValueError, match='holds no named tensors'):
        read_checkpoint(tmp_path / 'list.pt')
    (tmp_path / 'text.pt').write_text('not found')
    with pytest.raises(ValueError, match='not a checkpoint of tensors and plain data'):
        read_checkpoint(tmp_path / 'text.pt')


@pytest.mark.parametrize('name', ['a.pt', 'a.safetensors'])
@pytest.mark.parametrize('keep', [0, 10, 0.5, 0.98])
def test_a_truncated_file_is_named(tmp_path, name, keep):
    path, state = tmp_path / name, {'weight': torch.randn(100, 10)}
    save_file(state, path) if name.endswith('safetensors') else torch.save(state, path)
    data = path.read_bytes()
    path.write_bytes(data[:keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(ValueError, match=f'{name}: is truncated or not a checkpoint of tensors and plain data'):
        read_checkpoint(path)


@pytest.mark.parametrize(('content', 'match'), [
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git-LFS pointer'),
    (b'<!DOCTYPE html><html></html>', 'is a web page'),
    (pickle.dumps({'a': Malicious()}), 'holds .* could run code, .* --trust-pickle'),
    (pickle.dumps({'a': Malicious()})[:-5], 'is truncated'),
])
def test_other_files_are_explained(tmp_path, content, match):
    (tmp_path / 'a.pt').write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read_checkpoint(tmp_path / 'a.pt')


def test_safetensors_with_another_extension_are_explained(tmp_path):
    save_file({'weight': torch.randn(3)}, tmp_path / 'b.pt')
    with pytest.raises(ValueError, match=r'safetensors file with another extension; rename it to b\.safetensors'):
        read_checkpoint(tmp_path / 'b.pt')


def test_numbers_of_numpy_are_accepted(tmp_path):
    numbers = {kind.__name__: kind(1) for kind in (np.float16, np.uint8, np.int16, np.float32, np.int64, np.bool_)}
    torch.save({'model': {'weight': torch.ones(1)}, 'metrics': numbers}, tmp_path / 'a.pth')
    assert list(read_checkpoint(tmp_path / 'a.pth')) == ['weight']


def test_nested_wrappers_are_removed(tmp_path):
    torch.save({'model': {'state_dict': {'weight': torch.ones(1)}}}, tmp_path / 'a.pth')
    assert list(read_checkpoint(tmp_path / 'a.pth')) == ['weight']


@pytest.mark.parametrize('wrapper', [{}, {'module': {}}, {'epoch': 3, 'names': {'a': 1}}])
def test_a_wrapper_without_tensors_hides_none(tmp_path, wrapper):
    torch.save({'module': wrapper, 'model': {'weight': torch.ones(1)}}, tmp_path / 'a.pth')
    assert list(read_checkpoint(tmp_path / 'a.pth')) == ['weight']
    torch.save({'module': wrapper, 'weight': torch.ones(1)}, tmp_path / 'a.pth')
    assert list(read_checkpoint(tmp_path / 'a.pth')) == ['weight']


def test_only_a_leading_module_is_stripped(tmp_path):
    torch.save({'module.module.submodule.weight': torch.ones(1)}, tmp_path / 'a.pt')
    assert list(read_checkpoint(tmp_path / 'a.pt')) == ['submodule.weight']
