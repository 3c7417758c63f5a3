# Few-shot classification on ModelNet10 as grey discs on its points: support from the official training part, queries
# from the test part. Ten ways are all classes. `up` is the up axis of the files; models expect y.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py', '../_base_/few_shot.py']

modelnet_root = 'data/modelnet10'
up = 'z'
points = dict(
    type='clipgs_plugin.ModelNetGaussians', root=modelnet_root, num_points=1024, test_mode=True,
    pipeline=[dict(type='clipgs_plugin.ChangeUp', source=up, target='y')])
few_shot = dict(
    support=dict(points, split='trainval'),
    query=dict(points, split='test'),
    settings=[dict(ways=ways, shots=shots) for ways in (5, 10) for shots in (1, 5, 10)])
