# From the encoder of a CLIPGS model; `checkpoint` is a training checkpoint, a folder of save_pretrained or a name.
_base_ = ['classifier_pointbert-nano_50e_modelnet10.py']

model = dict(encoder=dict(init_cfg=dict(type='clipgs_plugin.CLIPGSPretrained', checkpoint='clipgs_toy')))
