# 10,000 Gaussians fitted to 36 views of 128 px: about 4 s an object on two CPU cores. The files determine the source
# and its usual up axis; --source and --up override them.
generation = dict(
    views=dict(size=128),
    fit=dict(preset='default'),
    storage=dict(dtype='float16', webp_quality=90))
