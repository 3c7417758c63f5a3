# Few-shot classification on the toy world with the weights that ship: 5 and 10 ways by 1 and 10 shots, and 1 to 10
# shots over all classes. Make a world with 20 test objects a class and more:
# tools/make_toy_world.py work_dirs/few_shot_world --num-train 1200 --num-val 0 --num-test 1200
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py', '../_base_/few_shot.py']

data_root = '{{$CLIPGS_TOY_WORLD:work_dirs/few_shot_world}}'
few_shot = dict(
    support=dict(type='clipgs_plugin.TripletDataset', root=data_root, split='train', test_mode=True),
    query=dict(type='clipgs_plugin.TripletDataset', root=data_root, split='test', test_mode=True),
    templates='toy',
    settings=[dict(ways=ways, shots=shots) for ways in (5, 10, None) for shots in (1, 10)])
