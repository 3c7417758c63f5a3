# Where the weights of the transformer come from (Table 7 of the CLIP-GS paper), on the toy world. The point-cloud model
# is pre-trained here on other objects, and its projection is not kept. Image weights are downloaded by timm.
_base_ = ['attributes.py']

title = ('Weights at the start of training; accuracy and recall in percent, 10 epochs on 1,200 objects, 2,000 test '
         'objects of unseen looks.')
options = {'_delete_': True, 'train_cfg.max_epochs': 10}
worlds = dict(pretraining=dict(num_train=1200, num_val=0, num_test=0, seed=1))
_tokenizer = 'model.encoder.tokenizer'
_uni3d, _vit = 'clipgs_uni3d-nano_15e_toy-world', 'clipgs_timm-vit-nano_15e_toy-world'
_plain = {f'{_tokenizer}.refine': False}
pretrainings = dict(point_cloud=dict(config=_uni3d, family='uni3d', world='pretraining', options=_plain))
rows = [
    dict(title='Uni3D blocks, from scratch', config=_uni3d),
    dict(title='Uni3D blocks, from a point-cloud model', config=_uni3d, start='point_cloud'),
    # The first convolution of the patch encoder gets columns of zeros for attributes that the point-cloud model lacks.
    *[dict(title=f'{_title}, from a point-cloud model', config=_uni3d, start='point_cloud', options=_options)
      for _title, _options in {
          'position and colour': _plain,
          'all attributes, by a widened convolution': {**_plain, f'{_tokenizer}.point_attributes': 'paper'},
          'shape, by a widened convolution': {**_plain, f'{_tokenizer}.point_attributes': 'shape'},
          'the paper\'s attributes by the GS tokenizer': {f'{_tokenizer}.attributes': 'paper'}}.items()],
    dict(title='ViT blocks, from scratch', config=_vit),
    dict(title='ViT blocks, from an image model', config=_vit, options={'model.encoder.backbone.pretrained': True},
         needs='a connection to the hub, for the weights of timm'),
]
compare = [('Uni3D blocks, from scratch', 'Uni3D blocks, from a point-cloud model'),
           *[(f'{_one}, from a point-cloud model', f'{_other}, from a point-cloud model') for _one, _other in (
               ('position and colour', 'all attributes, by a widened convolution'),
               ('all attributes, by a widened convolution', 'the paper\'s attributes by the GS tokenizer'),
               ('shape, by a widened convolution', 'Uni3D blocks'),
               ('position and colour', 'Uni3D blocks'))],
           ('ViT blocks, from scratch', 'ViT blocks, from an image model'),
           ('ViT blocks, from an image model', 'Uni3D blocks, from a point-cloud model')]
