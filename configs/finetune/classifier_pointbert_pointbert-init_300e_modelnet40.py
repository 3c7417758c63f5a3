# The published fine-tuning of Point-BERT on ModelNet40, from its pre-trained file: 64 patches of 32, drop path 0.1. The
# last epoch counts. The head is that of Point-MAE; Point-BERT's is head=dict(widths=(256,), norm=False).
_base_ = ['../_base_/datasets/modelnet40.py', '../_base_/schedules/finetune_300e.py', '../_base_/default_runtime.py']

model = dict(
    type='clipgs_plugin.GSClassifier',
    num_classes=40,
    label_smoothing=0.2,
    encoder=dict(
        type='clipgs_plugin.GSEncoder',
        tokenizer=dict(type='clipgs_plugin.GSTokenizer', num_groups=64, group_size=32, start=0, rule='pointnet2',
                       point_attributes=('xyz',), attributes='shape', channels=256),
        backbone=dict(type='clipgs_plugin.PointBERT', in_channels=256, drop_path_rate=0.1),
        init_cfg=dict(type='clipgs_plugin.PointCloudPretrained', checkpoint='point-bert')))

train_dataloader = dict(dataset=dict(split='trainval'))
val_cfg = val_dataloader = val_evaluator = None
train_cfg = dict(val_interval=301)
test_evaluator = dict(type='clipgs_plugin.ClassificationAccuracy')
custom_hooks = [dict(type='clipgs_plugin.ConfusionHook')]
default_hooks = dict(checkpoint=dict(interval=10, save_best=None))
