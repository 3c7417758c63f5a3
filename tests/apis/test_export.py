"""Exported files compute the model's embeddings, for any number of objects, Gaussians and patches."""
import sys

import pytest
import torch
from conftest import random_cloud

from clipgs_plugin import GaussianBatch
from clipgs_plugin.apis import export
from clipgs_plugin.models import ULIP, GSEncoder, GSTokenizer, PointBERT, Uni3D, encoder_inputs
from clipgs_plugin.tools import export as program

pytestmark = pytest.mark.filterwarnings('ignore')
TOKENIZER = dict(num_groups=12, group_size=8, channels=32, patch_encoder=dict(widths=(8, 16, 24)),
                 refine_widths=(8, 16, 24))
FAMILIES = {
    'Point-BERT, paper': lambda: GSEncoder(GSTokenizer(**TOKENIZER), PointBERT(32, 2, 4, 32), 16),
    'Uni3D, gauge free': lambda: GSEncoder(GSTokenizer(**TOKENIZER, attributes='gauge_free', combine='concat'),
                                           Uni3D('ti', 32, 2), 16),
    'ULIP, points': lambda: GSEncoder(GSTokenizer(**TOKENIZER, refine=False, start=0, rule='pointnet2',
                                                  point_attributes=('xyz',)), ULIP(32, 2, 4, 32), 16)}


def make(family):
    """An encoder in eval mode whose refinement gate and batch norms are not those of the start."""
    torch.manual_seed(0)
    encoder = FAMILIES[family]()
    for name, value in encoder.state_dict().items():
        if 'gate.weight' in name or 'running_mean' in name:
            value.normal_(std=0.3)
        if 'running_var' in name:
            value.uniform_(0.5, 1.5)
    return encoder.eval()


@pytest.mark.parametrize('family', FAMILIES)
def test_onnx_and_openvino_embed_as_the_model_does(family, tmp_path):
    for name in ('onnxscript', 'onnxruntime', 'openvino'):
        pytest.importorskip(name)
    encoder = make(family)
    path = tmp_path / 'model.onnx'
    assert export.export_model(encoder, path, [random_cloud(60), random_cloud(90, 1)]) < 1e-5
    compiled = export._load_openvino(path)
    for clouds in ([random_cloud(50, 3)], [random_cloud(70, i) for i in range(5)], [random_cloud(7, 4)] * 2):
        batch = GaussianBatch.from_clouds(clouds)
        inputs = encoder_inputs(encoder, batch)
        with torch.no_grad():
            expected = encoder(batch)
        for run in (export.load_exported(path), compiled):
            torch.testing.assert_close(run(inputs), expected, atol=2e-5, rtol=0)
    assert [file.name for file in tmp_path.iterdir()] == ['model.onnx']


def test_a_file_of_openvino_has_the_contract(tmp_path):
    pytest.importorskip('openvino')
    pytest.importorskip('onnxscript')
    encoder, path = make('ULIP, points'), tmp_path / 'model.xml'
    assert export.export_model(encoder, path, [random_cloud(60), random_cloud(90, 1)], 'openvino') < 1e-5
    assert export.read_exported_metadata(path) == export.metadata(encoder)
    assert sorted(file.name for file in tmp_path.iterdir()) == ['model.bin', 'model.xml']


def test_the_program_writes_a_torch_file_with_the_contract(tmp_path, capsys):
    path = tmp_path / 'toy.pt2'
    assert program.main(['clipgs_toy', str(path)]) == 0
    assert 'toy.pt2: embeddings of random Gaussians differ from those of the model by' in capsys.readouterr().out
    about = export.read_exported_metadata(path)
    assert (about['name'], about['teacher'], about['embed_dim']) == ('clipgs_toy', 'toy-clip', 128)
    assert about['frame'].startswith('right-handed, y up') and about['orders'] == ['xyz', 'hilbert', 'z']
    assert {'type': 'clipgs_plugin.SampleGaussians', 'num': 1024, 'method': 'fps'} in about['pipeline']
    with pytest.raises(SystemExit):
        program.main(['clipgs_toy', str(path)])
    assert 'exists; add --overwrite' in capsys.readouterr().err


def test_a_wrong_file_is_not_written(tmp_path, monkeypatch):
    encoder, clouds = make('ULIP, points'), [random_cloud(60), random_cloud(90, 1)]
    monkeypatch.setattr(export, 'TOLERANCE', -1.0)
    with pytest.raises(ValueError, match=r'm\.pt2: not written, since its embeddings differ from those of the model'):
        export.export_model(encoder, tmp_path / 'm.pt2', clouds, 'torch')
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r'm\.bin: expected a name that ends in \.pt2 for the format torch'):
        export.export_model(make('ULIP, points'), tmp_path / 'm.bin', [], 'torch')
    with pytest.raises(FileNotFoundError, match='its folder does not exist, create it first'):
        export.export_model(make('ULIP, points'), tmp_path / 'no' / 'm.pt2', [], 'torch')
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    monkeypatch.setattr(export.importlib.util, 'find_spec', lambda name: None if name == 'onnxscript' else True)
    with pytest.raises(ImportError, match='export to onnx needs onnxscript, of the extra "export"; install it with '
                                          'pip install onnxscript'):
        export.require_packages('onnx')
    with pytest.raises(ValueError, match="format='tflite': expected one of"):
        export.require_packages('tflite')


@pytest.mark.parametrize('words', [['m.bin'], ['m.onnx', '--format', 'torch']])
def test_wrong_use_is_told(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main(['clipgs_toy', *words])
    assert stopped.value.code == 2 and words[0] in capsys.readouterr().err
