# Weights of the views in the image voting loss, on the toy world; in half of the rows 40 % of the training views show
# other objects. With a view drawn at random, K = 1.
_base_ = ['attributes.py']

title = ('Weights of the views in the image loss; accuracy and recall in percent, 15 epochs on 1,200 objects, 2,000 '
         'test objects of unseen looks. Stray views: 40 % of the training views show other objects.')
_weights = {
    'voting, mean': {}, 'voting, softmax': {'model.image_loss.normalise': 'softmax'},
    'voting, none': {'model.image_loss.normalise': 'none'}, 'equal weights': {'model.image_loss.weights': 'uniform'},
    'one random view': {'model.image_loss.num_views': 1, 'train_dataloader.dataset.num_views': 1},
}
_stray = {'train_dataloader.dataset.type': 'clipgs_plugin.StrayViewTriplets', 'train_dataloader.dataset.stray': 0.4}
rows = [
    *[dict(title=title, options=options) for title, options in _weights.items()],
    *[dict(title=f'stray views, {title}', options={**options, **_stray}) for title, options in _weights.items()],
]
compare = [(f'{views}equal weights', f'{views}{title}') for views in ('', 'stray views, ')
           for title in _weights if title != 'equal weights']
