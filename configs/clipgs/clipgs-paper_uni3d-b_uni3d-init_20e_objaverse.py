# CLIP-GS with the attributes of its paper: rotation matrices and the sigmoid of the scales.
_base_ = ['clipgs_uni3d-b_uni3d-init_20e_objaverse.py']

model = dict(encoder=dict(tokenizer=dict(attributes='paper')))
