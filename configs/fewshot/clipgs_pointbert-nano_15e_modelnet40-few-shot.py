# Point-BERT's n ways and m shots on ModelNet40, drawn anew by seed: modelnet40_normal_resampled, whose up axis is y.
_base_ = ['clipgs_pointbert-nano_15e_modelnet10-few-shot.py']

modelnet_root = 'data/modelnet40_normal_resampled'
up = 'y'
few_shot = dict(
    support=dict(num_classes=40),
    query=dict(num_classes=40),
    settings=[dict(ways=ways, shots=shots) for ways in (5, 10) for shots in (10, 20)])
