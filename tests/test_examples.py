"""Every file of examples/ runs as its own docstring shows it, without the packages of other integrations."""
import ast
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, random_cloud

from clipgs_plugin import CLIPGSInferencer, GaussianBatch, write_gaussians
from clipgs_plugin.apis import SearchIndex
from clipgs_plugin.apis.export import export_model, metadata
from clipgs_plugin.models import encoder_inputs
from clipgs_plugin.structures.attributes import pack

EXAMPLES = sorted((ROOT / 'examples').glob('*.py'))
INTEGRATIONS = ('torch_geometric', 'pytorch3d', 'mmdet3d', 'mmdet', 'gsplat', 'pxr')
OPTIONAL = (*INTEGRATIONS, 'sklearn', 'onnxruntime')  # examples without them do not run
pytestmark = pytest.mark.filterwarnings('ignore')


def usage(path: Path) -> list[str]:
    """Words after the path in the command of an example's docstring."""
    line, = re.findall(rf'^    python examples/{path.name} (.*)$', ast.get_docstring(ast.parse(path.read_text())), re.M)
    return shlex.split(line)


def packages(path: Path) -> set[str]:
    """Packages that an example imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition('.')[0] for name in names}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Files by the words that stand for them in docstrings."""
    root = tmp_path_factory.mktemp('examples')
    for i, name in enumerate(('chair', 'chair', 'mug', 'mug')):
        (root / 'splats' / name).mkdir(parents=True, exist_ok=True)
        write_gaussians(random_cloud(1100, seed=i), root / 'splats' / name / f'{i}.ply')
    paths = [str(path) for path in sorted((root / 'splats').rglob('*.ply'))]
    embeddings = torch.nn.functional.normalize(torch.randn(len(paths), 8), dim=1)
    SearchIndex(embeddings, tuple(paths), 'clipgs_toy').save(root / 'embeddings.npz')
    return {'SPLATS': root / 'splats', 'FILE': paths[0], 'EMBEDDINGS': root / 'embeddings.npz',
            'MODEL': root / 'model.onnx',
            'PNG': root / 'points.png'}


@pytest.fixture(scope='module')
def clipgs():
    return CLIPGSInferencer('clipgs_toy')


@pytest.fixture
def run(monkeypatch, capsys):
    def run(path: Path, *arguments: object) -> str:
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name='__main__')
        return capsys.readouterr().out
    return run


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.stem)
def test_the_command_of_the_docstring_runs(path, files, run, clipgs, monkeypatch, tmp_path):
    for name in OPTIONAL:
        if name in packages(path):
            pytest.importorskip(name)
        elif name in INTEGRATIONS:
            monkeypatch.setitem(sys.modules, name, None)
    if 'MODEL' in usage(path):
        pytest.importorskip('onnxscript')
        export_model(clipgs.model, files['MODEL'], [clipgs.prepare(random_cloud(300, seed=i)) for i in range(2)])
    monkeypatch.chdir(tmp_path)
    assert run(path, *(files.get(word, word) for word in usage(path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert path.read_text(encoding='utf-8').count('\n') < 80


def test_the_query_lists_the_files_by_their_cosines(files, run, clipgs):
    lines = run(ROOT / 'examples' / 'embed_and_query.py', files['SPLATS'], 'a red chair').splitlines()
    scores = (clipgs.embed_gaussians([line.split()[1] for line in lines]) @ clipgs.embed_text('a red chair').T)[:, 0]
    assert len(lines) == 4 and scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert [float(line.split()[0]) for line in lines] == pytest.approx(scores.tolist(), abs=1e-3)


def test_the_training_loop_learns(files, run):
    lines = run(ROOT / 'examples' / 'own_training_loop.py', files['SPLATS'], '--epochs', '4').splitlines()
    losses = [float(re.search(r'loss ([\d.]+)', line)[1]) for line in lines]
    assert losses[-1] < 0.8 * losses[0]


def test_the_loss_falls_along_a_gradient_that_finite_differences_confirm(files, run):
    first, *steps = run(ROOT / 'examples' / 'embedding_as_loss.py', files['FILE'], 'a red chair',
                        '--steps', '6').splitlines()
    numeric, exact = map(float, re.findall(r'\d+\.\d{6}', first))
    assert numeric == pytest.approx(exact, rel=1e-3) and exact > 0.01
    cosines = [float(line.split()[-1]) for line in steps]
    assert len(cosines) == 7 and cosines[-1] > cosines[0] + 0.01


def test_a_capture_is_labelled_by_its_largest_part(files, run, clipgs):
    path = ROOT / 'examples' / 'splatfacto_to_labels.py'
    lines = run(path, files['FILE'], '--classes', 'chair,mug', '--up', 'y', '--whole').splitlines()[1:]
    expected = clipgs.classify(files['FILE'], ['chair', 'mug'], turns=4)[0]
    assert [line.split()[1] for line in lines] == [name for name, _ in expected]
    assert [float(line.split()[0]) for line in lines] == pytest.approx([p for _, p in expected], abs=1e-3)


def test_a_probe_without_scikit_learn_says_so_in_one_line(files, run, monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'sklearn'] + ['sklearn']:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match=r'^this example needs scikit-learn; install it with pip install \S+$'):
        run(ROOT / 'examples' / 'linear_probe.py', files['EMBEDDINGS'])


@pytest.mark.parametrize('start', ['farthest', 0])
@pytest.mark.parametrize('count', [10, 400])
def test_patches_in_numpy_are_those_of_the_library(clipgs, start, count, monkeypatch):
    pytest.importorskip('onnxruntime')
    monkeypatch.setattr(clipgs.model.encoder.tokenizer, 'start', start)
    cloud = random_cloud(count).normalise()
    expected = encoder_inputs(clipgs.model.encoder, GaussianBatch.from_clouds([cloud]))
    patches = runpy.run_path(str(ROOT / 'examples' / 'onnx_without_torch.py'))['patches']
    found = patches(pack(cloud).numpy(), metadata(clipgs.model))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name].numpy(), err_msg=name)


def test_real_splats_are_embedded(splats, run):
    lines = run(ROOT / 'examples' / 'embed_and_query.py', splats, 'a green cactus', '--top', '3').splitlines()
    assert len(lines) == 3 and all(Path(line.split()[1]).is_file() for line in lines)
