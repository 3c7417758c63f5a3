# Uni3D-S behind the GS tokenizer, in the space of EVA02-E-14-plus: 22 million parameters in the backbone.
model = dict(
    type='CLIPGS',
    encoder=dict(
        type='GSEncoder',
        tokenizer=dict(type='GSTokenizer', num_groups=512, group_size=64, channels=512),
        backbone=dict(type='Uni3D', size='s', in_channels=512),
        embed_dim=1024),
    text_loss=dict(type='ContrastiveLoss'),
    image_loss=dict(type='ImageVotingLoss', num_views=5))
