# The setting of CLIP-GS on Objaverse-LVIS: 5 shots at 5, 10, 20 and 50 ways, support from the train part and
# queries from the test part of the rule in docs/datasets.md. Classes with fewer than 5 objects in train or 20 in test
# are left out.
# `lvis_root` has the points of OpenShape or Uni3D, `lvis_list` is a list of the objects. Frame: y up.
_base_ = ['../clipgs/clipgs_uni3d-b_uni3d-init_20e_objaverse.py', '../_base_/few_shot.py']

lvis_root = 'data/objaverse_lvis'
lvis_list = 'data/objaverse_lvis/lvis.json'
few_shot = dict(
    support=dict(type='clipgs_plugin.ObjaverseLVIS', root=lvis_root, labels=lvis_list, split='train', test_mode=True),
    query=dict(type='clipgs_plugin.ObjaverseLVIS', root=lvis_root, labels=lvis_list, split='test', test_mode=True),
    scarce='leave_out',
    settings=[dict(ways=ways, shots=5) for ways in (5, 10, 20, 50)])
