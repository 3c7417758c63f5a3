# What the attributes of a Gaussian are worth (Table 5 of the CLIP-GS paper), on the toy world.
title = ('Attributes of a Gaussian: naively all at once, behind the GS tokenizer, and with image voting; '
         'accuracy and recall in percent, 15 epochs on 1,200 objects, 2,000 test objects of unseen looks.')
config = 'clipgs_pointbert-nano_15e_toy-world'
worlds = dict(main=dict(num_train=1200, num_val=0, num_test=2000, seed=0))
metrics = {'zero-shot top-1': 'zero_shot/top1', 'top-3': 'zero_shot/top3',
           'text to 3D R@1': 'retrieval/text_to_3d_R@1', 'image to 3D R@1': 'retrieval/image_to_3d_R@1'}
_plain = {'model.encoder.tokenizer.refine': False, 'model.image_loss': None}
rows = [
    dict(title='position and colour', options=_plain),
    dict(title='all attributes, naively',
         options={**_plain, 'model.encoder.tokenizer.point_attributes': 'paper'}),
    dict(title='GS tokenizer', options={'model.image_loss': None}),
    dict(title='GS tokenizer, image voting'),
    dict(title='position and colour, image voting', options={'model.encoder.tokenizer.refine': False}),
    dict(title='gauge-free attributes', options={'model.encoder.tokenizer.attributes': 'gauge_free'}),
    dict(title='logarithm of the scale', options={'model.encoder.tokenizer.scale': 'log'}),
]
compare = [
    ('position and colour', 'all attributes, naively'), ('all attributes, naively', 'GS tokenizer'),
    ('position and colour', 'GS tokenizer'), ('GS tokenizer', 'GS tokenizer, image voting'),
    ('position and colour, image voting', 'GS tokenizer, image voting'),
    ('GS tokenizer, image voting', 'gauge-free attributes'),
    ('GS tokenizer, image voting', 'logarithm of the scale'),
]
