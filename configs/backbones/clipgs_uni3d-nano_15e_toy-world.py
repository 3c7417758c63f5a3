# Uni3D on the toy world: EVA's blocks in the tiny width; the position is added once.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=dict(channels=128),
        backbone=dict(_delete_=True, type='clipgs_plugin.Uni3D', size='ti', depth=4, in_channels=128)))
