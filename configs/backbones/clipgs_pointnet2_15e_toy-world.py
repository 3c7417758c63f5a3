# PointNet++ on the toy world. It takes Gaussians, so it has no tokenizer.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(encoder=dict(tokenizer=None, backbone=dict(_delete_=True, type='clipgs_plugin.PointNet2')))
