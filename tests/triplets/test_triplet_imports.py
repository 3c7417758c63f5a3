"""The format is light to import and independent of generation."""
import pytest
from conftest import run_python


@pytest.mark.parametrize('package, absent', [
    ('triplets', ['triplets.inspection', 'generation', 'toy_world', 'models', 'datasets', 'visualization']),
    ('datasets', ['triplets.inspection', 'generation', 'toy_world'])])
def test_a_package_does_not_import(package, absent):
    code = f"""
import sys
import clipgs_plugin.{package}
absent = tuple('clipgs_plugin.' + name for name in {absent}) + ('matplotlib', 'pyarrow')
print([name for name in sys.modules if name in absent or name.startswith(tuple(a + '.' for a in absent))])
"""
    assert run_python(code) == '[]'
