"""Record the attributes of the toy world's training objects beside a model that was trained on them."""
from __future__ import annotations

import json
from pathlib import Path

from clipgs_plugin.tools._program import parser, progress_bar, run


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/dev/record_attributes.py clipgs_toy')
    args.add_argument('name', help='name of the model and of its folder in clipgs_plugin/weights')
    args.add_argument('--objects', type=int, default=600, help='number of training objects (%(default)s)')
    options = args.parse_args(argv)

    import clipgs_plugin
    from clipgs_plugin.apis.doctor_expectations import ATTRIBUTES_FILE, expectations
    from clipgs_plugin.io.files import write_whole
    model = expectations(options.name)
    record = dict(objects=options.objects, seed=0, ranges='smallest and largest quantile of any object',
                  made_by=f'python tools/dev/record_attributes.py {options.name} --objects {options.objects}',
                  attributes=measure(options.objects, model.pipeline))
    path = Path(clipgs_plugin.__file__).parent / 'weights' / options.name / ATTRIBUTES_FILE
    write_whole(path, [json.dumps(record, indent=1).encode()])
    print(f'attributes of {options.objects} objects in {path}')
    return 0


def measure(num_objects: int, pipeline: list) -> dict[str, dict[str, list[float]]]:
    """Return the smallest and largest quantile of any training object, by attribute and level."""
    import numpy as np

    from clipgs_plugin.apis.doctor_expectations import attribute_quantiles
    from clipgs_plugin.datasets.transforms import build_pipeline
    from clipgs_plugin.toy_world import make_object
    from clipgs_plugin.toy_world.specs import object_specs
    prepare, found = build_pipeline(pipeline), []
    with progress_bar() as bar:
        for spec in bar.track(object_specs(num_objects), description='measuring'):
            item = {'gaussians': make_object(spec).gaussians, 'rng': np.random.default_rng(0), 'index': 0, 'epoch': 0}
            found.append(attribute_quantiles(prepare(item)['inputs']))
    return {name: {level: [float(f'{bound([item[name][level] for item in found]):.4g}') for bound in (min, max)]
                   for level in found[0][name]} for name in found[0]}


def cli() -> None:
    """Run from the command line."""
    run(main)


if __name__ == '__main__':
    cli()
