# The probe of OpenShape and Uni3D on Objaverse-LVIS: 1, 2, 4, 8 and 16 shots over all 1,156 classes, support from the
# train part and all objects of the test part as queries. Classes with fewer objects than shots give all they have.
_base_ = ['clipgs_uni3d-b_uni3d-init_20e_objaverse-few-shot-ways.py']

few_shot = dict(scarce='take_all', queries=None, settings=[dict(ways=None, shots=shots) for shots in (1, 2, 4, 8, 16)])
