_base_ = ['adamw_20e.py']

train_cfg = dict(max_epochs=100, val_interval=5)
param_scheduler = [dict(_base_.param_scheduler[0], end=2000), *_base_.param_scheduler[1:]]  # a longer warmup
