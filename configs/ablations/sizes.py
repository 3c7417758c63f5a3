# Sizes of the transformer (Table 9 of the CLIP-GS paper): widths on the toy world, and for users Uni3D's sizes on
# Objaverse.
_base_ = ['attributes.py']

title = ('Sizes of the transformer; accuracy and recall in percent. Widths: toy world, 10 epochs on 1,200 objects, '
         '2,000 test objects of unseen looks.')
_encoder = 'model.encoder'
_needs = 'Objaverse triplets (docs/triplets.md), the weights of Uni3D and a GPU'
options = dict(_delete_=True)
rows = [
    *[dict(title=f'width {width}', options={
        f'{_encoder}.tokenizer.point_attributes': ('xyz', 'rgb'),
        f'{_encoder}.tokenizer.channels': width, f'{_encoder}.backbone.in_channels': width,
        f'{_encoder}.backbone.embed_dims': width, f'{_encoder}.backbone.num_heads': width // 32,
        'train_cfg.max_epochs': 10})
      for width in (64, 128, 256)],
    dict(title='Uni3D-Ti', config='clipgs_uni3d-s_uni3d-init_20e_objaverse', world=None, needs=_needs, options={
        f'{_encoder}.backbone.size': 'ti', f'{_encoder}.init_cfg.checkpoint': 'uni3d-ti'}),
    *[dict(title=f'Uni3D-{size.upper()}', config=f'clipgs_uni3d-{size}_uni3d-init_20e_objaverse', world=None,
           needs=_needs) for size in ('s', 'b')],
]
compare = [('width 64', 'width 128'), ('width 128', 'width 256'), ('Uni3D-Ti', 'Uni3D-S'), ('Uni3D-S', 'Uni3D-B')]
