default_scope = 'clipgs_plugin'

# A config of your own adds hooks with `custom_hooks`; these stay, because dicts merge.
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # At least two, because the oldest file is removed before the newest is written.
    checkpoint=dict(
        type='clipgs_plugin.WholeCheckpointHook', interval=1, max_keep_ckpts=2, save_best='auto', rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Each process counts its own objects in its buffers (batch norm); validation and checkpoints have their mean.
    sync_buffers=dict(type='SyncBuffersHook'),
    safe_checkpoint=dict(type='clipgs_plugin.SafeCheckpointHook'),
    seed=dict(type='clipgs_plugin.SeedHook'),
    progress_bar=dict(type='clipgs_plugin.ProgressBarHook'),
    model_summary=dict(type='clipgs_plugin.ModelSummaryHook'))

# Spawn, because a fork copies the locks of other threads but not the threads that release them.
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='spawn', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_processor = dict(window_size=20)
log_level = 'INFO'

randomness = dict(seed=0)
load_from = None
resume = False
