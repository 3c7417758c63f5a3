# What of the refinement branch counts: its attributes, width, pooling, gate and learning rate. On the toy world, with
# image voting. The small encoder has a branch of widths (32, 32, 64), the class GSTokenizer (64, 128, 256).
_base_ = ['attributes.py']

title = ('The refinement branch: its attributes, width, pooling, gate and learning rate; accuracy and recall in '
         'percent, 10 epochs on 1,200 objects, 2,000 test objects of unseen looks.')
_tokenizer = 'model.encoder.tokenizer'
_seen = {'positions and colours only': ('xyz', 'rgb'), 'without rotation': ('xyz', 'rgb', 'opacity', 'scale'),
         'without scale': ('xyz', 'rgb', 'opacity', 'rotation'), 'without opacity': ('xyz', 'rgb', 'scale', 'rotation')}
_wider = {f'{_tokenizer}.refine_widths': (32, 64, 128)}
_shape = {f'{_tokenizer}.attributes': 'shape'}
rows = [
    dict(title='no branch', options={f'{_tokenizer}.refine': False}),
    dict(title='the paper\'s attributes'),
    *[dict(title=title, options={f'{_tokenizer}.attributes': names}) for title, names in _seen.items()],
    dict(title='wider', options=_wider),
    dict(title='mean in place of maximum', options={f'{_tokenizer}.pooling': 'mean'}),
    # Of the tokenizer's layers, the gate alone is a Linear.
    dict(title='gate open at the start', options={
        f'{_tokenizer}.init_cfg': dict(type='TruncNormal', layer='Linear', std=0.02)}),
    *[dict(title=f'{factor} times the learning rate', options={
        'optim_wrapper.paramwise_cfg.custom_keys': {'tokenizer.refinement': dict(lr_mult=factor)}})
      for factor in (0.3, 3)],
    dict(title='shape', options=_shape),
    dict(title='shape, wider', options={**_shape, **_wider}),
]
compare = [('no branch', 'positions and colours only'), ('positions and colours only', 'the paper\'s attributes'),
           *[('the paper\'s attributes', row['title']) for row in rows[3:-2]], ('shape', 'shape, wider')]
