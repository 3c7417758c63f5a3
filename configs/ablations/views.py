# The number of views K of the image voting loss, on the toy world.
_base_ = ['attributes.py']

title = ('Views of an object in a step of training; accuracy and recall in percent, 15 epochs on 1,200 objects, '
         '2,000 test objects of unseen looks.')
rows = [
    dict(title='text alone', options={'model.image_loss': None}),
    *[dict(title=f'K = {count}', options={'model.image_loss.num_views': count,
                                          'train_dataloader.dataset.num_views': count}) for count in (1, 2, 5, 8)],
]
compare = [('text alone', 'K = 1'), ('K = 1', 'K = 5'), ('K = 2', 'K = 5'), ('K = 5', 'K = 8')]
