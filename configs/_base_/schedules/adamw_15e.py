_base_ = ['adamw_20e.py']

train_cfg = dict(max_epochs=15)
