# Ten learned prompts beside the patches, and the head; everything else is frozen.
_base_ = ['classifier_pointbert-nano_clipgs-init_50e_modelnet10.py']

model = dict(encoder=dict(
    backbone=dict(num_prompts=10),
    frozen=('patch_encoder', 'refinement', 'position', 'blocks', 'norm')))
