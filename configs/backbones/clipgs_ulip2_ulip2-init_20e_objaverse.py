# CLIP-GS with ULIP-2's coloured Point-BERT.
_base_ = ['../_base_/models/clip_gs.py', '../_base_/datasets/objaverse_triplets.py',
          '../_base_/schedules/adamw_20e.py', '../_base_/default_runtime.py']

# Its teacher is OpenCLIP's ViT-bigG-14, so training begins in the space where the model ended.
teacher_name = 'vit-bigg-14-laion2b'

# The name stands for the network, its weights, and how it was shown points.
model = dict(encoder=dict(type='GSEncoder', backbone='ulip2-pointbert-10k-colored', embed_dim=1280))
teacher = dict(type='OpenCLIPTeacher', model=teacher_name)

train_dataloader = dict(dataset=dict(features=teacher_name))
val_dataloader = dict(dataset=dict(features=teacher_name))
test_dataloader = dict(dataset=dict(features=teacher_name))

optim_wrapper = dict(optimizer=dict(lr=1e-4))
val_evaluator = test_evaluator = dict(type='RetrievalRecall')
