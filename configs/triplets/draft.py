# 2,000 Gaussians and views of 64 px for a first look at new data: about 1 s an object on two CPU cores.
_base_ = './default.py'

generation = dict(views=dict(size=64), fit=dict(preset='draft'))
