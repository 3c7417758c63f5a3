# The folds of ModelNet40 that Point-BERT published, ten of each setting: ModelNetFewshot/5way10shot/0.pkl and so on.
# Each of the 8,192 points is a grey disc on its normal; the pipeline of the model samples them. Frame: y up.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py', '../_base_/few_shot.py']

folds_root = 'data/ModelNetFewshot'
few_shot = dict(
    folds=dict(type='clipgs_plugin.PublishedFolds', root=folds_root),
    settings=[dict(ways=ways, shots=shots) for ways in (5, 10) for shots in (10, 20)])
