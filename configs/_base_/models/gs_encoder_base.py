# Uni3D-B behind the GS tokenizer, in the space of EVA02-E-14-plus: 87 million parameters in the backbone.
_base_ = ['clip_gs.py']

model = dict(
    encoder=dict(
        type='clipgs_plugin.GSEncoder',
        tokenizer=dict(
            type='clipgs_plugin.GSTokenizer', num_groups=512, group_size=64, channels=512, attributes='shape'),
        backbone=dict(type='clipgs_plugin.Uni3D', size='b', in_channels=512),
        embed_dim=1024))
