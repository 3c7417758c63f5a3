# The probe of OpenShape and Uni3D on the toy world: 1, 2, 4, 8 and 16 shots over all classes, and all test objects.
_base_ = ['clipgs_pointbert-nano_15e_toy-world-few-shot.py']

few_shot = dict(queries=None, settings=[dict(ways=None, shots=shots) for shots in (1, 2, 4, 8, 16)])
