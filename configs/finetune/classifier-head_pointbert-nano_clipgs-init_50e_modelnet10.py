# The head alone, on the frozen encoder.
_base_ = ['classifier_pointbert-nano_clipgs-init_50e_modelnet10.py']

model = dict(encoder=dict(frozen=('patch_encoder', 'refinement', 'position', 'blocks', 'norm')))
