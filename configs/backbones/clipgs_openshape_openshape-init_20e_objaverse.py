# CLIP-GS with OpenShape's PointBERT, which was trained with y and z exchanged.
_base_ = ['clipgs_ulip2_ulip2-init_20e_objaverse.py']

model = dict(encoder=dict(backbone='openshape-pointbert-vitg14'))
