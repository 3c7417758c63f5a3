# The three splits of a triplet dataset.
_base_ = ['gaussians.py']

train_dataloader = dict(dataset=dict(type='clipgs_plugin.TripletDataset', split='train', num_views=5))
val_dataloader = dict(dataset=dict(type='clipgs_plugin.TripletDataset', split='val', test_mode=True))
test_dataloader = dict(dataset=dict(type='clipgs_plugin.TripletDataset', split='test', test_mode=True))
