# CLIP-GS in the small size.
_base_ = ['clipgs_uni3d-b_uni3d-init_20e_objaverse.py']

model = dict(
    encoder=dict(backbone=dict(size='s'), init_cfg=dict(checkpoint='uni3d-s')))
