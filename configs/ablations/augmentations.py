# What the shipped model is trained with: changes in which fitters differ, parts and light, judged by validation
# objects, so that no test object takes part in the choice. `tools/benchmark.py refits --split val` makes the fits, and
# the environment variable CLIPGS_REFITS names their folder.
_base_ = ['fitters.py']

title = ('Augmentations of the quickstart; zero-shot top-1 in percent on validation objects: whole, in part, in light, '
         'and as other fitters would have made them.')
options = dict(_delete_=True)

_load = _base_._load
_pack = _base_._pack
_parts = {
    'whole': [],
    'half': [dict(type='clipgs_plugin.CutGaussians', probability=1, share=(0.5, 0.5), cuts=('plane',))],
    'one view': [dict(type='clipgs_plugin.OccludeGaussians', probability=1, cameras=(1, 1), ball=(0, 0))],
    'in light': [dict(type='clipgs_plugin.ShadeGaussians', probability=1)],
}
_fits = ('surface', 'short', 'volume', 'isotropic', 'large', 'pruned')
tests = dict(_delete_=True, **{
    _name: {
        'test_evaluator': [_base_._top1], 'test_dataloader.dataset.split': 'val',
        'test_dataloader.dataset.pipeline': [
            *_load, *_part, dict(type='clipgs_plugin.SampleGaussians', num=1024, method='fps'), *_pack]}
    for _name, _part in _parts.items()}, **{_name: _base_.tests[_name] for _name in _fits})
metrics = dict(_delete_=True, **{_name: f'{_name}/zero_shot/top1' for _name in (*_parts, *_fits)})

_vary = dict(type='clipgs_plugin.VaryFitter', probability=0.5)
_cut = dict(type='clipgs_plugin.CutGaussians', probability=0.5)
_occlude = dict(type='clipgs_plugin.OccludeGaussians', probability=0.5)
_shade = dict(type='clipgs_plugin.ShadeGaussians', probability=0.5)
_steps = {'none': [], 'fitters': [_vary], 'fitters and light': [_vary, _shade],
          'fitters, parts and light': [_vary, _cut, _occlude, _shade]}
rows = [
    *[dict(title=_title, options={'train_dataloader.dataset.pipeline': [
          *_load, *_each, dict(type='clipgs_plugin.SampleGaussians', num=1024), _pack[0],
          dict(type='clipgs_plugin.RotateGaussians', axis='y'), _pack[1]]})
      for _title, _each in _steps.items()],
    # The quickstart's: fitters with probability 0.3, 20 epochs, and the epoch that is best on whole validation objects.
    dict(title='clipgs_toy', trained=False, options={
        'model.encoder.init_cfg': dict(type='CLIPGSPretrained', checkpoint='clipgs_toy')})]
compare = [('none', _title) for _title in (*_steps, 'clipgs_toy') if _title != 'none']
