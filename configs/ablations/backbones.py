# Backbones on the toy world (docs/backbones.md), from scratch and from a checkpoint of the family that was pre-trained
# here on other objects. The training objects are ten of each category, which are also the shots of the linear probe.
title = ('Backbones from scratch, and from a file of their family that was pre-trained here for 5 epochs on 1,200 '
         'other objects; accuracy in percent after 5 epochs on 600 objects, 400 test objects of unseen looks.')
options = {'train_cfg.max_epochs': 5}
worlds = dict(main=dict(num_train=600, num_val=0, num_test=400, seed=0),
              pretraining=dict(num_train=1200, num_val=0, num_test=0, seed=1))
metrics = {'zero-shot': 'zero_shot/top1', '10-shot': 'probe/top1'}
probe = dict(split='train')

# Title, config, family of the checkpoints, attributes that its published models see if they are not the config's.
_families = [
    ('Point-BERT', 'clipgs_pointbert-nano-h64_15e_toy-world', 'point_bert', ('xyz',)),
    ('Point-MAE', 'clipgs_pointmae-nano_15e_toy-world', 'point_mae', ('xyz',)),
    ('ULIP', 'clipgs_ulip-nano_15e_toy-world', 'ulip', None),
    ('Uni3D', 'clipgs_uni3d-nano_15e_toy-world', 'uni3d', None),
    ('OpenShape', 'clipgs_openshape-nano_15e_toy-world', 'openshape', None),
    ('ReCon', 'clipgs_recon-nano_15e_toy-world', 'recon', ('xyz',)),
    ('ReCon++', 'clipgs_reconpp-nano_15e_toy-world', 'recon_plus_plus', None),
    ('Gaussian-MAE', 'clipgs_gaussianmae-nano_15e_toy-world', 'gaussian_mae', None),
]
pretrainings = {
    family: dict(config=config, family=family, world='pretraining', options={
        'model.encoder.tokenizer.refine': False,
        **({} if sees is None else {'model.encoder.tokenizer.point_attributes': sees})})
    for _, config, family, sees in _families}
rows = [
    *[row for title, config, family, _ in _families for row in (
        dict(title=title, config=config),
        dict(title=f'{title}, from its file', config=config, start=family))],
    dict(title='timm ViT', config='clipgs_timm-vit-nano_15e_toy-world'),
    dict(title='PointNet++', config='clipgs_pointnet2_15e_toy-world'),
    dict(title='DGCNN', config='clipgs_dgcnn-nano_15e_toy-world'),
    dict(title='serialised transformer', config='clipgs_serialized-nano_15e_toy-world'),
    dict(title='12 views in the teacher', config='views_toy-clip_0e_toy-world', trained=False),
]
compare = [(title, f'{title}, from its file') for title, *_ in _families]
