# OpenShape's PointBERT on the toy world: ball queries of coloured points with their position in the object.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=dict(
            channels=128,
            radius=0.2,
            point_attributes=('xyz', 'position', 'rgb'),
            patch_encoder=dict(_delete_=True, type='clipgs_plugin.SetAbstraction', widths=(32, 64))),
        backbone=dict(_delete_=True, type='clipgs_plugin.OpenShapePPAT', scaling=1, depth=4, in_channels=128)))
