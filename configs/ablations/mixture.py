# Training on a mixture of fitters: a third of the objects is a fit from the surface. The tests are those of fitters.py.
# `tools/benchmark.py refits --split train` makes the fits; CLIPGS_TRAIN_REFITS names another folder.
_base_ = ['fitters.py']

title = ('Training on objects of one fitter, or of two; zero-shot top-1 in percent, 10 epochs on 1,200 toy objects, '
         'test objects of unseen looks.')
_draw = dict(type='clipgs_plugin.DrawFit', probability=1.0,
             roots='{{$CLIPGS_TRAIN_REFITS:work_dirs/refits_train}}/surface')
_seen = ('position and colour', 'all attributes, naively', 'paper', 'shape')
_steps = {'': [], ', mixture': [_draw], ', mixture and variation': [_draw]}
rows = [dict(title=f'{_title}{_mend}', options={
            **_base_._attributes[_title],
            'train_dataloader.dataset.pipeline': [
                *_first, *_base_._load, *([_base_._vary] if 'variation' in _mend else []), *_base_._train]})
        for _mend, _first in _steps.items() for _title in _seen]
compare = [(_title, f'{_title}{_mend}') for _mend in _steps if _mend for _title in _seen]
