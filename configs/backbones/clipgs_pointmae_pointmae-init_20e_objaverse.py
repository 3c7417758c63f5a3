# CLIP-GS with Point-MAE, pre-trained on ShapeNet without colour and without CLIP.
_base_ = ['clipgs_pointbert_pointbert-init_20e_objaverse.py']

model = dict(encoder=dict(backbone='point-mae'))
