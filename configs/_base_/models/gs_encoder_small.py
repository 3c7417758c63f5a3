# Uni3D-S behind the GS tokenizer: 22 million parameters in the backbone.
_base_ = ['gs_encoder_base.py']

model = dict(encoder=dict(backbone=dict(size='s')))
