_base_ = ['adamw_20e.py']

train_cfg = dict(max_epochs=200, val_interval=10)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=2000),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, eta_min=0, convert_to_iter_based=True),
]
