# The three splits of a triplet dataset. If the dataset has no split val or test, `hold_out` of the training objects
# replaces it.
_base_ = ['gaussians.py']

hold_out = 0.1

train_dataloader = dict(
    dataset=dict(type='clipgs_plugin.TripletDataset', split='train', num_views=5, hold_out=hold_out))
val_dataloader = dict(
    dataset=dict(type='clipgs_plugin.TripletDataset', split='val', test_mode=True, hold_out=hold_out))
test_dataloader = dict(
    dataset=dict(type='clipgs_plugin.TripletDataset', split='test', test_mode=True, hold_out=hold_out))
