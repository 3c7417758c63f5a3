# Losses of CLIP-GS; an experiment config adds the encoder.
model = dict(
    type='clipgs_plugin.CLIPGS',
    text_loss=dict(type='clipgs_plugin.ContrastiveLoss'),
    image_loss=dict(type='clipgs_plugin.ImageVotingLoss', num_views=5))
