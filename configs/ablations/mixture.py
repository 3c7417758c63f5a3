# Training on fits from the surface, or on a mixture of these with objects as the toy world makes them. The tests are
# those of fitters.py. `tools/benchmark.py refits --split train` makes the fits (docs/robustness.md);
# CLIPGS_TRAIN_REFITS names another folder.
_base_ = ['fitters.py']

title = ('Training on objects of one fitter, or of several; zero-shot top-1 in percent, 10 epochs on 1,200 toy '
         'objects, test objects of unseen looks.')
_made = '{{$CLIPGS_TRAIN_REFITS:work_dirs/refits_train}}'
_mixed = dict(type='clipgs_plugin.DrawFit', roots=[f'{_made}/surface'], probability=0.5)
_steps = {
    '': [],
    ', fits alone': [dict(_mixed, probability=1.0)],
    ', mixture': [_mixed],
    ', mixture and variation': [_mixed, _base_._vary],
}
_seen = ('position and colour', 'all attributes, naively', 'paper', 'shape')
# A fit takes the place of the file, before anything else.
rows = [dict(title=f'{_title}{_mend}', options={
            **_base_._attributes[_title], 'train_dataloader.dataset.pipeline': [
                *_changes[:1], *_base_._load, *_changes[1:], *_base_._train]})
        for _mend, _changes in _steps.items() for _title in (_seen if len(_changes) < 2 else _seen[2:])]
compare = [(_title, f'{_title}{_mend}') for _mend, _changes in _steps.items() if _changes
           for _title in (_seen if len(_changes) < 2 else _seen[2:])]
