# 5,000 iterations, as CLIP-GS (arXiv 2412.19142) fits.
_base_ = './default.py'

generation = dict(fit=dict(preset='paper'))
