# A nano encoder with a classification head, from scratch: the baseline of the configs that start from trained weights.
_base_ = ['../_base_/models/gs_encoder_nano.py', '../_base_/datasets/modelnet10.py',
          '../_base_/schedules/finetune_50e.py', '../_base_/default_runtime.py']

model = dict(
    _delete_=True,
    type='clipgs_plugin.GSClassifier',
    num_classes=10,
    label_smoothing=0.2,
    encoder=_base_.model.encoder)

val_evaluator = test_evaluator = dict(type='clipgs_plugin.ClassificationAccuracy')
custom_hooks = [dict(type='clipgs_plugin.ConfusionHook')]
default_hooks = dict(checkpoint=dict(interval=10, save_best='accuracy/top1', rule='greater'))
