# Low-rank updates of the blocks and the head; everything else is frozen.
_base_ = ['classifier_pointbert-nano_clipgs-init_50e_modelnet10.py']

model = dict(encoder=dict(
    lora=dict(rank=8, alpha=16, targets=('attn', 'mlp')),
    frozen=('patch_encoder', 'refinement', 'position', 'blocks', 'norm')))
