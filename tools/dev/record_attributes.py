"""Record the attributes of the toy world's training objects beside a model that was trained on them."""
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._program import parser, progress_bar, run

if TYPE_CHECKING:
    from mmengine.config import Config


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/dev/record_attributes.py clipgs_toy')
    args.add_argument('name', help='name of the model and of its folder in clipgs_plugin/weights')
    args.add_argument('--objects', type=int, default=600, help='number of training objects (%(default)s)')
    options = args.parse_args(argv)

    import clipgs_plugin
    from clipgs_plugin.apis.doctor_expectations import ATTRIBUTES_FILE
    from clipgs_plugin.apis.models import get_model_config
    from clipgs_plugin.io.files import write_whole
    record = dict(objects=options.objects, seed=0, ranges='smallest and largest quantile of any object',
                  made_by=f'python tools/dev/record_attributes.py {options.name} --objects {options.objects}',
                  attributes=measure(options.objects, get_model_config(options.name)))
    path = Path(clipgs_plugin.__file__).parent / 'weights' / options.name / ATTRIBUTES_FILE
    write_whole(path, [json.dumps(record, indent=1).encode()])
    print(f'attributes of {options.objects} objects in {path}')
    return 0


def measure(num_objects: int, cfg: Config) -> dict[str, dict[str, list[float]]]:
    """Return the smallest and largest quantile of any training object of a config, by attribute and level."""
    from clipgs_plugin.apis.attributes import attribute_ranges
    from clipgs_plugin.apis.sharing import prepared
    from clipgs_plugin.toy_world import make_object
    from clipgs_plugin.toy_world.specs import object_specs
    with progress_bar() as bar:
        specs = bar.track(object_specs(num_objects), description='measuring')
        return attribute_ranges(prepared(cfg, (make_object(spec).gaussians for spec in specs), 'train'))['attributes']


def cli() -> None:
    """Run from the command line."""
    run(main)


if __name__ == '__main__':
    cli()
