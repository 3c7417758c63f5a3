# PointNet++ on the toy world: it takes the Gaussians themselves, so there is no tokenizer.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(encoder=dict(tokenizer=None, backbone=dict(_delete_=True, type='PointNet2')))
