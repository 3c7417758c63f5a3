_base_ = ['adamw_100e.py']

train_cfg = dict(max_epochs=200, val_interval=10)
