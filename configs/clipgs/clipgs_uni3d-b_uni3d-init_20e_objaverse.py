# CLIP-GS with the base model of its paper: Uni3D-B's weights behind the GS tokenizer, trained on cached features.
_base_ = ['../_base_/models/gs_encoder_base.py', '../_base_/datasets/objaverse_triplets.py',
          '../_base_/schedules/adamw_20e.py', '../_base_/default_runtime.py']

# Uni3D has the same teacher. Its projection is loaded too, so training begins in its embedding space.
model = dict(
    encoder=dict(
        teacher=_base_.teacher_name,
        init_cfg=dict(type='clipgs_plugin.PointCloudPretrained', checkpoint='uni3d-b')))

# Training uses cached features; the teacher embeds texts and images afterwards.
teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=_base_.teacher_name)

optim_wrapper = dict(optimizer=dict(lr=1e-4))
val_evaluator = test_evaluator = dict(type='clipgs_plugin.RetrievalRecall')
