# CLIP-GS with ReCon++ in the base size.
_base_ = ['clipgs_ulip2_ulip2-init_20e_objaverse.py']

model = dict(encoder=dict(backbone='recon++-b'))
