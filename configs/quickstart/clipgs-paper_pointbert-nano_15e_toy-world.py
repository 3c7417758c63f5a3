# The quickstart with the attributes of the paper: rotation matrices and the sigmoid of the scales.
_base_ = ['clipgs_pointbert-nano_15e_toy-world.py']

model = dict(encoder=dict(tokenizer=dict(attributes='paper')))
