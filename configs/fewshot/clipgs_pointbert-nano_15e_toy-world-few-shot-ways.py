# The setting of CLIP-GS on the toy world: 5 shots at 5, 10, 20 and 50 of its 60 classes.
_base_ = ['clipgs_pointbert-nano_15e_toy-world-few-shot.py']

few_shot = dict(settings=[dict(ways=ways, shots=5) for ways in (5, 10, 20, 50)])
