# Losses of CLIP-GS; an experiment config adds the encoder.
model = dict(
    type='CLIPGS',
    text_loss=dict(type='ContrastiveLoss'),
    image_loss=dict(type='ImageVotingLoss', num_views=5))
