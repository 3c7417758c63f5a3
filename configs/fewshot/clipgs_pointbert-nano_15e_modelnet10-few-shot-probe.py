# Heads on frozen features beside fine-tuning: the objects of docs/finetuning.md, 20 training objects a class, which
# `few_shot.support.seed` draws, and 50 test objects a class.
_base_ = ['clipgs_pointbert-nano_15e_modelnet10-few-shot.py']

few_shot = dict(
    support=dict(split='train', per_class=20, seed=0),
    query=dict(per_class=50),
    queries=None,
    trials=1,
    settings=[dict(ways=None, shots=20)])
