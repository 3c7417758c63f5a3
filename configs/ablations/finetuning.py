# Classification of ModelNet10 with few labels (docs/finetuning.md): points and splats from scratch, and what is tuned
# of an encoder that knows the toy world. --data-root names the folder of ModelNet10.
title = ('ModelNet10, 20 training objects a class and 15 epochs; top-1 in percent on 50 test objects a class. A seed '
         'changes the training objects, their augmentation and the initial weights.')
config = 'classifier_pointbert-nano_50e_modelnet10'
options = {'warmup': 2, 'train_cfg.max_epochs': 15, 'train_dataloader.dataset.per_class': 20,
           'test_dataloader.dataset.per_class': 50}
metrics = {'top-1': 'accuracy/top1', 'mean of classes': 'accuracy/mean_class_top1'}

_tokenizer = 'model.encoder.tokenizer'
_plain = {f'{_tokenizer}.refine': False}
rows = [
    dict(title='points, from scratch', options={**_plain, f'{_tokenizer}.point_attributes': ('xyz',)}),
    dict(title='all attributes naively, from scratch', options={**_plain, f'{_tokenizer}.point_attributes': 'paper'}),
    dict(title='GS tokenizer, from scratch'),
    # A point model of equal size that knows the toy world as clipgs_toy does (docs/finetuning.md).
    dict(title='points, from a point model', needs='a point model trained on the toy world', options={
        **_plain, 'model.encoder.init_cfg': dict(
            type='clipgs_plugin.CLIPGSPretrained', checkpoint='work_dirs/points_toy-world/epoch_20.pth')}),
    *[dict(title=f'from clipgs_toy{_what}', config=f'classifier{_part}_pointbert-nano_clipgs-init_50e_modelnet10')
      for _what, _part in {
          '': '', ', low-rank updates': '-lora', ', prompts': '-prompts', ', head alone': '-head'}.items()],
]
compare = [('points, from scratch', 'GS tokenizer, from scratch'),
           ('all attributes naively, from scratch', 'GS tokenizer, from scratch'),
           ('points, from a point model', 'from clipgs_toy'), ('GS tokenizer, from scratch', 'from clipgs_toy'),
           *[('from clipgs_toy', f'from clipgs_toy, {_tuned}')
             for _tuned in ('low-rank updates', 'prompts', 'head alone')]]
