"""Compilation of the numba kernels."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from clipgs_plugin.tools.benchmarks.timing import Case

FIRST_USES = {
    'point kernels': 'ops.group(torch.rand(1, 500, 3), 32, 8)',
    'rasteriser': ('c = clipgs_plugin.GaussianCloud(*(torch.randn(s, requires_grad=True) for s in '
                   '((9, 3), (9, 4), (9, 3), (9,), (9, 1, 3))))\n'
                   'ops.render(c, ops.look_at((0., 0., 9.))[None], ops.intrinsics(40, 32, 32)[None], 32, 32)[0]'
                   '.sum().backward()'),
}


def kernels() -> list[Case]:
    """Time the first use of the compiled kernels in a new process, with an empty cache and with a filled one."""
    cases = []
    for what, call in FIRST_USES.items():
        code = ('import time, torch, clipgs_plugin\nfrom clipgs_plugin import ops\n'
                'wall, cpu = time.perf_counter(), time.process_time()\n'
                f'{call}\nprint(time.perf_counter() - wall, time.process_time() - cpu)')
        with tempfile.TemporaryDirectory() as cache:
            for way, budget_ms in (('compiled', 20_000), ('from disk', 1_000)):
                done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'NUMBA_CACHE_DIR': cache},
                                      capture_output=True, text=True, check=True)
                ms, cpu_ms = (float(seconds) * 1e3 for seconds in done.stdout.split())
                cases.append(Case(what, way, 1, ms, cpu_ms, 'process', times=cases[-1].ms / ms if cases else None,
                                  cpu_times=cases[-1].cpu_ms / cpu_ms if cases else None,
                                  budget_ms=budget_ms, note='with the import of numba'))
    return cases
