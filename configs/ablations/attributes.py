# What the attributes of a Gaussian are worth (Table 5 of the CLIP-GS paper), on the toy world.
title = ('Attributes of a Gaussian: naively all at once, behind the GS tokenizer, and with image voting; '
         'accuracy and recall in percent, 10 epochs on 1,200 objects, 2,000 test objects of unseen looks.')
config = 'clipgs_pointbert-nano_15e_toy-world'
# Two thirds of the width and of the epochs of the config: a cell takes two to three minutes on one core.
_encoder, _tokenizer = 'model.encoder', 'model.encoder.tokenizer'
options = {f'{_encoder}.backbone.embed_dims': 128, f'{_encoder}.backbone.num_heads': 4,
           f'{_encoder}.backbone.in_channels': 128, f'{_tokenizer}.channels': 128, f'{_tokenizer}.attributes': 'paper',
           f'{_tokenizer}.point_attributes': ('xyz', 'rgb'), 'train_cfg.max_epochs': 10}
worlds = dict(main=dict(num_train=1200, num_val=0, num_test=2000, seed=0))
metrics = {'zero-shot top-1': 'zero_shot/top1', 'top-3': 'zero_shot/top3',
           'text to 3D R@1': 'retrieval/text_to_3d_R@1', 'image to 3D R@1': 'retrieval/image_to_3d_R@1'}
_plain = {f'{_tokenizer}.refine': False}
_text = {'model.image_loss': None}
_gauge_free = ('xyz', 'rgb', 'opacity', 'log_covariance')
rows = [
    dict(title='position and colour', options={**_plain, **_text}),
    dict(title='all attributes, naively', options={**_plain, **_text, f'{_tokenizer}.point_attributes': 'paper'}),
    dict(title='GS tokenizer', options=_text),
    dict(title='all attributes, naively, voting', options={**_plain, f'{_tokenizer}.point_attributes': 'paper'}),
    dict(title='GS tokenizer, voting'),
    dict(title='gauge-free, naively, voting', options={**_plain, f'{_tokenizer}.point_attributes': _gauge_free}),
    dict(title='gauge-free GS tokenizer, voting', options={f'{_tokenizer}.attributes': 'gauge_free'}),
    dict(title='shape GS tokenizer, voting', options={f'{_tokenizer}.attributes': 'shape'}),
    dict(title='GS tokenizer, log scale, voting', options={f'{_tokenizer}.scale': 'log'}),
    dict(title='gauge-free in both branches, voting', options={
        f'{_tokenizer}.attributes': 'gauge_free', f'{_tokenizer}.point_attributes': _gauge_free}),
]
compare = [
    ('position and colour', 'all attributes, naively'), ('all attributes, naively', 'GS tokenizer'),
    ('position and colour', 'GS tokenizer'), ('GS tokenizer', 'GS tokenizer, voting'),
    ('all attributes, naively, voting', 'GS tokenizer, voting'),
    ('all attributes, naively, voting', 'shape GS tokenizer, voting'),
    ('GS tokenizer, voting', 'gauge-free GS tokenizer, voting'),
    ('GS tokenizer, voting', 'shape GS tokenizer, voting'),
    ('gauge-free GS tokenizer, voting', 'shape GS tokenizer, voting'),
    ('gauge-free, naively, voting', 'gauge-free GS tokenizer, voting'),
    ('GS tokenizer, voting', 'GS tokenizer, log scale, voting'),
    ('gauge-free GS tokenizer, voting', 'gauge-free in both branches, voting'),
]
