# Cross-validation over the objects of a triplet dataset with held-out views (configs/triplets/held_out_views.py). A
# model trains on the fitted views of four fifths of the objects. The queries are the held-out views of the last fifth,
# and the gallery holds all objects. `--cfg-options fold_number=1` takes the next fifth.
_base_ = ['triplets.py']

fold_number = 0
num_folds = 5
fitted_views = list(range(36))
held_out_views = list(range(36, 48))

train_dataloader = dict(dataset=dict(hold_out=0.0, fold=(fold_number, num_folds), views=fitted_views))
test_dataloader = dict(dataset=dict(hold_out=0.0, fold=(fold_number, num_folds), split=None))
test_evaluator = dict(
    type='clipgs_plugin.RetrievalRecall', views='all', view_slots=held_out_views, queries='test')
