# CLIP-GS in the large size.
_base_ = ['clipgs_uni3d-b_uni3d-init_20e_objaverse.py']

model = dict(
    encoder=dict(backbone=dict(size='l'), init_cfg=dict(checkpoint='uni3d-l')))
