# CLIP-GS with Gaussian-MAE's encoder at its published size, from scratch, because its weights were never released.
_base_ = ['../_base_/models/clip_gs.py', '../_base_/datasets/objaverse_triplets.py',
          '../_base_/schedules/adamw_20e.py', '../_base_/default_runtime.py']

model = dict(
    encoder=dict(
        type='clipgs_plugin.GSEncoder',
        tokenizer=dict(
            type='clipgs_plugin.GSTokenizer',
            num_groups=64,
            group_size=40,
            channels=384,
            attributes='shape',
            point_attributes=('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc'),
            patch_encoder=dict(type='clipgs_plugin.SoftPatchEncoder')),
        backbone=dict(type='clipgs_plugin.GaussianMAE', drop_path_rate=0.1),
        embed_dim=1024))
teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=_base_.teacher_name)

val_evaluator = test_evaluator = dict(type='clipgs_plugin.RetrievalRecall')
