# 10,000 Gaussians fitted to 36 views of 128 px: about 4 s per object on two CPU cores. The source is detected from the
# files, with the most common up axis of its kind; --source and --up override them.
generation = dict(
    views=dict(size=128),
    fit=dict(preset='default'),
    storage=dict(dtype='float16', webp_quality=90))
