# Classification of ModelNet10 with all its training objects. --data-root names the folder of ModelNet10.
_base_ = ['finetuning.py']

title = ('ModelNet10, all training objects and 5 epochs; top-1 in percent on the 908 test objects. A seed changes the '
         'augmentation and the initial weights.')
options = {'train_cfg.max_epochs': 5, 'train_dataloader.dataset.per_class': None,
           'test_dataloader.dataset.per_class': None}
rows = [_row for _row in _base_.rows if not _row['title'].startswith('from clipgs_toy, ')]
compare = [_pair for _pair in _base_.compare if {*_pair} <= {_row['title'] for _row in rows}]
