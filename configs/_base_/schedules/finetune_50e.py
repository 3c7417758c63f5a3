_base_ = ['finetune_300e.py']

train_cfg = dict(max_epochs=50)
