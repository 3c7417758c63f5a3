# Views of a splat in a CLIP model: no 3D weights and no training. A config adds the teacher.
model = dict(
    type='clipgs_plugin.MultiViewCLIP',
    num_views=12,
    elevation=(0.0, 30.0),
    background=(1.0, 1.0, 1.0),
    pooling='mean')
