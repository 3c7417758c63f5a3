# Scanned objects with real texture (docs/real_texture.md), in five folds by object. An image that no fit and no
# training has seen is to find its object among all objects; only objects outside the training are asked for.
# --data-root names the triplets, which tools/make_triplets.py makes with configs/triplets/held_out_views.py.
title = ('Real texture: image to 3D by held-out views of held-out objects among all objects, 60 epochs on four fifths '
         'of the objects; a seed a fold.')
config = 'clipgs_pointbert-nano_60e_triplet-folds'
metrics = {'R@1': 'retrieval/image_to_3d_R@1', 'R@5': 'retrieval/image_to_3d_R@5',
           'R@10': 'retrieval/image_to_3d_R@10', 'median rank': 'retrieval/image_to_3d_median_rank'}
repeats = [dict(fold_number=repeat % 5) for repeat in range(10)]

_tokenizer = 'model.encoder.tokenizer'
_plain = {f'{_tokenizer}.refine': False}
rows = [
    dict(title='teacher, mean of the fitted views', config='cached-views_toy-clip_0e_triplet-folds', trained=False),
    dict(title='12 rendered views in the teacher', config='views_toy-clip_0e_triplet-folds', trained=False),
    dict(title='splats, GS tokenizer'),
    dict(title='coloured points', options=_plain),
    dict(title='points without colour', options={**_plain, f'{_tokenizer}.point_attributes': ('xyz',)}),
    dict(title='splats, all attributes naively', options={**_plain, f'{_tokenizer}.point_attributes': 'paper'}),
    dict(title='splats, GS tokenizer, from clipgs_toy', options={
        'model.encoder.init_cfg': dict(type='CLIPGSPretrained', checkpoint='clipgs_toy')}),
]
compare = [
    ('coloured points', 'splats, GS tokenizer'), ('splats, all attributes naively', 'splats, GS tokenizer'),
    ('points without colour', 'coloured points'), ('splats, GS tokenizer', 'splats, GS tokenizer, from clipgs_toy'),
    ('splats, GS tokenizer', '12 rendered views in the teacher'),
    ('12 rendered views in the teacher', 'teacher, mean of the fitted views'),
]
