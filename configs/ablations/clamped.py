# Scales bounded relative to the radius of the object, in training and in tests. The rows without bounds are those of
# fitters.py.
_base_ = ['fitters.py']

title = ('Scales between 1/100 and 1/10 of the radius of the object; zero-shot top-1 in percent, 10 epochs on 1,200 '
         'toy objects, test objects of unseen looks.')
_clamp = dict(type='clipgs_plugin.TameGaussians', min_scale=0.01, max_scale=0.1)
tests = dict(_delete_=True, **{
    _name: {
        'test_evaluator': [_base_._top1],
        'test_dataloader.dataset': {**_test['test_dataloader.dataset'], '_delete_': True, 'pipeline': [
            *_base_._load, _clamp, *_base_._as_is[len(_base_._load):]]}}
    for _name, _test in _base_.tests.items() if not _name.endswith('points')})
metrics = dict(_delete_=True, **{_name: f'{_name}/zero_shot/top1' for _name in tests if _name != '_delete_'})
rows = [dict(title=f'{_title}, clamped', options={
            **_options, 'train_dataloader.dataset.pipeline': [*_base_._load, _clamp, *_base_._train]})
        for _title, _options in _base_._attributes.items() if _title != 'position and colour']
compare = [('paper, clamped', 'gauge-free, clamped'), ('paper, clamped', 'shape, clamped')]
