# CLIP-GS with Point-BERT, pre-trained on ShapeNet without colour and without CLIP.
_base_ = ['../_base_/models/clip_gs.py', '../_base_/datasets/objaverse_triplets.py',
          '../_base_/schedules/adamw_20e.py', '../_base_/default_runtime.py']

# The name selects the architecture, its weights and its input convention.
model = dict(encoder=dict(
    type='clipgs_plugin.GSEncoder', tokenizer=dict(attributes='shape'), backbone='point-bert', embed_dim=1024,
    teacher=_base_.teacher_name))
teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=_base_.teacher_name)

optim_wrapper = dict(optimizer=dict(lr=1e-4))
val_evaluator = test_evaluator = dict(type='clipgs_plugin.RetrievalRecall')
