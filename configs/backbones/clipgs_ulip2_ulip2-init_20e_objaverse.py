# CLIP-GS with ULIP-2's coloured Point-BERT. Its teacher is OpenCLIP's ViT-bigG-14, so training begins in the space in
# which the model was pre-trained.
_base_ = ['clipgs_pointbert_pointbert-init_20e_objaverse.py']

teacher_name = 'vit-bigg-14-laion2b'

model = dict(encoder=dict(backbone='ulip2-pointbert-10k-colored', embed_dim=1280, teacher=teacher_name))
teacher = dict(model=teacher_name)

train_dataloader = dict(dataset=dict(features=teacher_name))
val_dataloader = dict(dataset=dict(features=teacher_name))
test_dataloader = dict(dataset=dict(features=teacher_name))
