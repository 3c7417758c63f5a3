# Scanned objects with real texture (docs/real_texture.md), in five folds by object. An image that no fit and no
# training has seen is to find its object among all objects; only objects outside the training are asked for.
# --data-root names the triplets, which tools/make_triplets.py makes with configs/triplets/held_out_views.py.
title = ('Real texture: image to 3D by held-out views of held-out objects among all objects, 60 epochs on four fifths '
         'of the objects; a seed a fold.')
config = 'clipgs_pointbert-nano_60e_triplet-folds'
metrics = {'R@1': 'retrieval/image_to_3d_R@1', 'R@5': 'retrieval/image_to_3d_R@5',
           'R@10': 'retrieval/image_to_3d_R@10', 'median rank': 'retrieval/image_to_3d_median_rank'}
repeats = [dict(fold_number=repeat % 5) for repeat in range(10)]

# Two thirds of the config's width, as in attributes.py, apart from the row that starts from trained weights.
_encoder, _tokenizer = 'model.encoder', 'model.encoder.tokenizer'
_narrow = {f'{_encoder}.backbone.embed_dims': 128, f'{_encoder}.backbone.num_heads': 4,
           f'{_encoder}.backbone.in_channels': 128, f'{_tokenizer}.channels': 128}
_plain = {**_narrow, f'{_tokenizer}.refine': False}
rows = [
    dict(title='teacher, mean of the fitted views', config='cached-views_toy-clip_0e_triplet-folds', trained=False),
    dict(title='12 rendered views in the teacher', config='views_toy-clip_0e_triplet-folds', trained=False),
    dict(title='points without colour', options={**_plain, f'{_tokenizer}.point_attributes': ('xyz',)}),
    dict(title='coloured points', options=_plain),
    dict(title='splats, paper\'s attributes naively', options={**_plain, f'{_tokenizer}.point_attributes': 'paper'}),
    dict(title='splats, GS tokenizer, paper\'s attributes', options={**_narrow, f'{_tokenizer}.attributes': 'paper'}),
    dict(title='splats, GS tokenizer', options={**_narrow, f'{_tokenizer}.attributes': 'gauge_free'}),
    dict(title='splats, GS tokenizer, from clipgs_toy', options={
        f'{_encoder}.init_cfg': dict(type='CLIPGSPretrained', checkpoint='clipgs_toy')}),
]
compare = [
    ('points without colour', 'coloured points'), ('coloured points', 'splats, GS tokenizer'),
    ('splats, paper\'s attributes naively', 'splats, GS tokenizer, paper\'s attributes'),
    ('splats, GS tokenizer, paper\'s attributes', 'splats, GS tokenizer'),
    ('splats, GS tokenizer', 'splats, GS tokenizer, from clipgs_toy'),
    ('splats, GS tokenizer', '12 rendered views in the teacher'),
    ('12 rendered views in the teacher', 'teacher, mean of the fitted views'),
]
