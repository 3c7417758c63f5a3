# Point-BERT on the toy world with heads as wide as the published models have them, so that files go in and out: the
# quickstart's own has heads of 32.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(encoder=dict(backbone=dict(num_heads=3)))
