# 5,000 iterations, as in CLIP-GS (arXiv 2412.19142).
_base_ = './default.py'

generation = dict(fit=dict(preset='paper'))
