# Triplets for retrieval by pictures that the Gaussians were not fitted to: 2,000 Gaussians, fitted to views 0 to 35 of
# an object. Views 36 to 47 are held out. No check of a fit looks at them either, so every object takes all iterations.
_base_ = ['draft.py']

generation = dict(views=dict(keep_test=True), fit=dict(check_every=0), storage=dict(objects_per_shard=8))
