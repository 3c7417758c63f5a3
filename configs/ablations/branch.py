# What of the refinement branch counts: its attributes, its width, its pooling. On the toy world, with image voting.
_base_ = ['attributes.py']

title = ('The refinement branch: its attributes, width and pooling; accuracy and recall in percent, 10 epochs on 1,200 '
         'objects, 2,000 test objects of unseen looks.')
_tokenizer = 'model.encoder.tokenizer'
_seen = {'positions and colours only': ('xyz', 'rgb'), 'without rotation': ('xyz', 'rgb', 'opacity', 'scale'),
         'without scale': ('xyz', 'rgb', 'opacity', 'rotation'), 'without opacity': ('xyz', 'rgb', 'scale', 'rotation')}
rows = [
    dict(title='no branch', options={f'{_tokenizer}.refine': False}),
    dict(title='the paper\'s attributes'),
    *[dict(title=title, options={f'{_tokenizer}.attributes': names}) for title, names in _seen.items()],
    dict(title='half the width', options={f'{_tokenizer}.refine_widths': (32, 64, 128)}),
    dict(title='mean in place of maximum', options={f'{_tokenizer}.pooling': 'mean'}),
]
compare = [('no branch', 'positions and colours only'), ('positions and colours only', 'the paper\'s attributes'),
           *[('the paper\'s attributes', row['title']) for row in rows[3:]]]
