# Where the weights of the transformer come from (Table 7 of the CLIP-GS paper), on the toy world. The point-cloud model
# is pre-trained here on other objects, and its projection is not kept. Image weights are downloaded by timm.
_base_ = ['attributes.py']

title = ('Weights at the start of training; accuracy and recall in percent, 15 epochs on 1,200 objects, 2,000 test '
         'objects of unseen looks.')
worlds = dict(pretraining=dict(num_train=1200, num_val=0, num_test=0, seed=1))
_uni3d, _vit = 'clipgs_uni3d-nano_15e_toy-world', 'clipgs_timm-vit-nano_15e_toy-world'
pretrainings = dict(point_cloud=dict(config=_uni3d, family='uni3d', world='pretraining',
                                     options={'model.encoder.tokenizer.refine': False}))
rows = [
    dict(title='Uni3D blocks, from scratch', config=_uni3d),
    dict(title='Uni3D blocks, from a point-cloud model', config=_uni3d, start='point_cloud'),
    dict(title='ViT blocks, from scratch', config=_vit),
    dict(title='ViT blocks, from an image model', config=_vit, options={'model.encoder.backbone.pretrained': True},
         needs='a connection to the hub, for the weights of timm'),
]
compare = [('Uni3D blocks, from scratch', 'Uni3D blocks, from a point-cloud model'),
           ('ViT blocks, from scratch', 'ViT blocks, from an image model'),
           ('ViT blocks, from an image model', 'Uni3D blocks, from a point-cloud model')]
