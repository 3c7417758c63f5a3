"""The example of a torch-geometric loop, without the packages of other integrations."""
import ast

import pytest
from conftest import run_python

from clipgs_plugin import write_gaussians

pytest.importorskip('torch_geometric')

BLOCKED = ('pytorch3d', 'mmdet3d', 'gsplat', 'pxr')


def test_the_example_trains(root, tmp_path, random_cloud):
    for seed, name in enumerate(['round.ply', 'flat.splat']):
        cloud = random_cloud(1200, seed=seed)
        write_gaussians(cloud if seed else cloud.replace(means=cloud.means * cloud.means.new_tensor([1, 0.1, 1])),
                        tmp_path / name)
    code = f"""
import sys, warnings
warnings.simplefilter('ignore')
sys.modules.update(dict.fromkeys({BLOCKED}))  # an import of None raises
sys.path.insert(0, {str(root / 'examples')!r})
import pyg_training
print(pyg_training.main([{str(tmp_path)!r}, '--epochs', '30', '--gaussians', '64']))
"""
    assert float(run_python(code).splitlines()[-1]) == 1.0


def test_the_example_is_short(root):
    text = (root / 'examples' / 'pyg_training.py').read_text(encoding='utf-8')
    assert text.count('\n') < 80
    assert ast.get_docstring(ast.parse(text))
