# Objects as other fitters would have made them, for encoders that were trained on the toy world as it is.
# `tools/benchmark.py refits` makes the test sets; the environment variable CLIPGS_REFITS names another folder. The fits
# (surface, short, sh3, volume) resemble none of the augmentations.
title = ('Test objects as other fitters would have made them; zero-shot top-1 in percent, 10 epochs on 1,200 toy '
         'objects, test objects of unseen looks.')
config = 'clipgs_pointbert-nano_15e_toy-world'
_encoder, _tokenizer = 'model.encoder', 'model.encoder.tokenizer'
# Two thirds of the width and of the epochs of the config, as in attributes.py.
options = {f'{_encoder}.backbone.embed_dims': 128, f'{_encoder}.backbone.num_heads': 4,
           f'{_encoder}.backbone.in_channels': 128, f'{_tokenizer}.channels': 128, 'train_cfg.max_epochs': 10}
_root = '{{$CLIPGS_REFITS:work_dirs/refits}}'
_fits = ('surface', 'short', 'sh3', 'volume')
_kinds = ('own', *_fits, 'saturated', 'isotropic', 'tiny', 'large', 'pruned', 'splat', 'spz')

_load = [dict(type='clipgs_plugin.LoadGaussians', sh_degree=0),
         dict(type='clipgs_plugin.FilterOpacity', threshold=0.05), dict(type='clipgs_plugin.DropFloaters')]
_pack = [dict(type='clipgs_plugin.NormaliseGaussians'), dict(type='clipgs_plugin.PackGaussians')]
_as_is = [*_load, dict(type='clipgs_plugin.SampleGaussians', num=1024, method='fps'), *_pack]
_as_points = [_load[0], dict(type='clipgs_plugin.SplatsToPoints', num_points=1024), *_pack]
_top1 = dict(type='clipgs_plugin.ZeroShotAccuracy', templates='toy',
             teacher=dict(type='clipgs_plugin.OpenCLIPTeacher', model='toy-clip'))
tests = {
    f'{_kind}{_way}': {
        'test_evaluator': [_top1],
        'test_dataloader.dataset': dict(_delete_=True, type='clipgs_plugin.GaussianFolder', root=f'{_root}/{_kind}',
                                        test_mode=True, pipeline=_pipeline)}
    for _way, _pipeline in {'': _as_is, ', points': _as_points}.items()
    for _kind in (_kinds if _way == '' else ('own', *_fits))}
metrics = {_name: f'{_name}/zero_shot/top1' for _name in tests}

_attributes = {
    'position and colour': {f'{_tokenizer}.refine': False},
    'all attributes, naively': {f'{_tokenizer}.refine': False, f'{_tokenizer}.point_attributes': 'paper'},
    'paper': {f'{_tokenizer}.attributes': 'paper'},
    'gauge-free': {f'{_tokenizer}.attributes': 'gauge_free'},
    'shape': {f'{_tokenizer}.attributes': 'shape'},
}
_drop = dict(type='clipgs_plugin.DropAttributes', probability=0.5)
_vary = dict(type='clipgs_plugin.VaryFitter', probability=0.5)
_mends = {'': [], ', dropout': [_drop], ', variation': [_vary], ', both': [_vary, _drop]}
_train = [dict(type='clipgs_plugin.SampleGaussians', num=1024), _pack[0],
          dict(type='clipgs_plugin.RotateGaussians', axis='y'), _pack[1]]
# Dropout hides nothing that a row of positions and colours sees.
_pairs = [(_title, _mend) for _mend, _steps in _mends.items() for _title in _attributes
          if _title != 'position and colour' or _drop not in _steps]
rows = [dict(title=f'{_title}{_mend}', options={
            **_attributes[_title], 'train_dataloader.dataset.pipeline': [*_load, *_mends[_mend], *_train]})
        for _title, _mend in _pairs]
compare = [('position and colour', 'paper'), ('position and colour', 'shape'), ('paper', 'shape'),
           *((_title, f'{_title}{_mend}') for _title, _mend in _pairs if _mend)]
