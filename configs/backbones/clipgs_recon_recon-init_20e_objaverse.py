# CLIP-GS with ReCon, pre-trained on ShapeNet without colour.
_base_ = ['clipgs_pointbert_pointbert-init_20e_objaverse.py']

model = dict(encoder=dict(backbone='recon'))
