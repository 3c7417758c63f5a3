_base_ = ['../../configs/_base_/default_runtime.py', '../../configs/_base_/schedules/adamw_20e.py']

custom_imports = dict(imports=['engine_toy'], allow_failed_imports=False)
custom_hooks = [dict(type='KillHook', iteration=None)]
model = dict(type='CLIPGS', encoder=dict(type='EngineToyEncoder'))
train_dataloader = dict(
    batch_size=4, num_workers=0, drop_last=True, dataset=dict(type='EngineToyClouds'),
    sampler=dict(type='DefaultSampler', shuffle=True), collate_fn=dict(type='clipgs_plugin.engine_toy_collate'))
val_dataloader = dict(
    batch_size=5, num_workers=0, dataset=dict(type='EngineToyClouds', size=11),
    sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='clipgs_plugin.engine_toy_collate'))
val_evaluator = dict(type='RetrievalRecall', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=4)
optim_wrapper = dict(optimizer=dict(lr=2e-2))
