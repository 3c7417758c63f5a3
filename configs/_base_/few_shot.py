# What few-shot configs share: the heads with their fixed settings, and the numbers of Point-BERT's folds (10 trials,
# 20 queries a class). A config adds `support`, `query` and `settings`; see docs/few_shot.md.
few_shot = dict(
    heads={
        'zero-shot': dict(type='clipgs_plugin.ZeroShotHead'),
        'prototype': dict(type='clipgs_plugin.PrototypeHead'),
        'linear probe': dict(type='clipgs_plugin.LinearProbe'),
        'ZS-LP': dict(type='clipgs_plugin.ZeroShotLinear'),
        'CLAP': dict(type='clipgs_plugin.CLAP'),
        'Tip-Adapter': dict(type='clipgs_plugin.TipAdapter'),
        'Tip-Adapter-F': dict(type='clipgs_plugin.TipAdapterF'),
        'CLIP-Adapter': dict(type='clipgs_plugin.CLIPAdapter'),
    },
    templates='objects',
    class_embeddings=None,
    queries=20,
    trials=10,
    seed=0,
    scarce='refuse',
    protocol='fixed')
