# Orders of the Gaussians of a patch, and the ways to combine them (Table 6 of the CLIP-GS paper), on the toy world.
_base_ = ['attributes.py']

title = ('Orders of the Gaussians of a patch; accuracy and recall in percent, 10 epochs on 1,200 objects, '
         '2,000 test objects of unseen looks.')
_tokenizer = 'model.encoder.tokenizer'
rows = [
    dict(title='no refinement', options={f'{_tokenizer}.refine': False}),
    *[dict(title=order, options={f'{_tokenizer}.orders': (order,)}) for order in ('xyz', 'hilbert', 'z')],
    dict(title='three orders, mean'),
    *[dict(title=f'three orders, {combine}', options={f'{_tokenizer}.combine': combine})
      for combine in ('concat', 'turn')],
]
compare = [('no refinement', 'hilbert'), ('no refinement', 'three orders, mean'), ('xyz', 'hilbert'), ('z', 'hilbert'),
           ('hilbert', 'three orders, mean'), ('three orders, mean', 'three orders, concat'),
           ('three orders, mean', 'three orders, turn')]
