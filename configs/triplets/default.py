# 10,000 Gaussians fitted to 36 views of 128 px: about 4 s an object on two CPU cores. Sources are told by the files,
# with the up axis that their kind most often has; --source and --up name others.
generation = dict(
    views=dict(size=128),
    fit=dict(preset='default'),
    storage=dict(dtype='float16', webp_quality=90))
