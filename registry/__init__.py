"""Child registries of mmengine's, of scope ``clipgs_plugin``.

mmengine imports this module by its name when a config says ``clipgs_plugin.X``, and the locations of a registry at the
first look-up that fails. Users need no custom import, and nothing of the library is imported here.
"""
import mmengine.registry as _parents
from mmengine.registry import Registry

SCOPE = 'clipgs_plugin'

# Name of each parent registry, and the modules that register its members.
_LOCATIONS = {
    'RUNNERS': (),
    'RUNNER_CONSTRUCTORS': (),
    'LOOPS': (),
    'HOOKS': ('clipgs_plugin.engine',),
    'DATASETS': ('clipgs_plugin.datasets',),
    'DATA_SAMPLERS': ('clipgs_plugin.datasets',),
    'TRANSFORMS': ('clipgs_plugin.datasets.transforms',),
    'FUNCTIONS': ('clipgs_plugin.datasets',),
    'MODELS': ('clipgs_plugin.models',),
    'MODEL_WRAPPERS': (),
    'WEIGHT_INITIALIZERS': ('clipgs_plugin.models.checkpoints', 'clipgs_plugin.models.classifier_head'),
    'OPTIMIZERS': (),
    'OPTIM_WRAPPERS': ('clipgs_plugin.engine',),
    'OPTIM_WRAPPER_CONSTRUCTORS': ('clipgs_plugin.engine',),
    'PARAM_SCHEDULERS': (),
    'METRICS': ('clipgs_plugin.evaluation', 'clipgs_plugin.engine'),
    'EVALUATOR': (),
    'TASK_UTILS': ('clipgs_plugin.generation',),
    'VISUALIZERS': (),
    'VISBACKENDS': (),
    'STRATEGIES': (),
    'LOG_PROCESSORS': (),
    'INFERENCERS': ('clipgs_plugin.apis',),
}


def _child(name: str) -> Registry:
    parent = getattr(_parents, name)
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=list(_LOCATIONS[name]))


RUNNERS = _child('RUNNERS')
RUNNER_CONSTRUCTORS = _child('RUNNER_CONSTRUCTORS')
LOOPS = _child('LOOPS')
HOOKS = _child('HOOKS')
DATASETS = _child('DATASETS')
DATA_SAMPLERS = _child('DATA_SAMPLERS')
TRANSFORMS = _child('TRANSFORMS')
FUNCTIONS = _child('FUNCTIONS')
MODELS = _child('MODELS')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS')
OPTIMIZERS = _child('OPTIMIZERS')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS')
METRICS = _child('METRICS')
EVALUATOR = _child('EVALUATOR')
TASK_UTILS = _child('TASK_UTILS')
VISUALIZERS = _child('VISUALIZERS')
VISBACKENDS = _child('VISBACKENDS')
STRATEGIES = _child('STRATEGIES')
LOG_PROCESSORS = _child('LOG_PROCESSORS')
INFERENCERS = _child('INFERENCERS')
