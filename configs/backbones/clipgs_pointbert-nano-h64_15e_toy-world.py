# Point-BERT on the toy world with heads of width 64, as in the published models, so that it reads and writes their
# checkpoints. The quickstart has heads of width 32.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(encoder=dict(backbone=dict(num_heads=3)))
