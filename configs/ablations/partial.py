# Objects as scenes hold them: training with random cuts, occlusion and light, and tests of each.
title = ('Whole objects, parts, and objects in light; zero-shot top-1 in percent, clipgs_toy as it is and after 5 '
         'further epochs on 1,200 toy objects, 600 test objects of unseen looks.')
config = 'clipgs_pointbert-nano_15e_toy-world'
options = {'model.encoder.init_cfg': dict(type='CLIPGSPretrained', checkpoint='clipgs_toy'),
           'optim_wrapper.optimizer.lr': 3e-4, 'train_cfg.max_epochs': 5}
worlds = dict(main=dict(num_train=1200, num_val=0, num_test=600, seed=0))

_load = [dict(type='clipgs_plugin.LoadGaussians', sh_degree=0),
         dict(type='clipgs_plugin.FilterOpacity', threshold=0.05), dict(type='clipgs_plugin.DropFloaters')]
_pack = [dict(type='clipgs_plugin.NormaliseGaussians'), dict(type='clipgs_plugin.PackGaussians')]
_test_parts = {
    'whole': [],
    'half': [dict(type='clipgs_plugin.CutGaussians', probability=1, share=(0.5, 0.5), cuts=('plane',))],
    'box of 50 %': [dict(type='clipgs_plugin.CutGaussians', probability=1, share=(0.5, 0.5), cuts=('box',))],
    'one view': [dict(type='clipgs_plugin.OccludeGaussians', probability=1, cameras=(1, 1), ball=(0, 0))],
    'three views past a ball': [dict(type='clipgs_plugin.OccludeGaussians', probability=1, cameras=(3, 3),
                                     ball=(0.4, 0.4))],
    'in light': [dict(type='clipgs_plugin.ShadeGaussians', probability=1)],
}
_top1 = dict(type='clipgs_plugin.ZeroShotAccuracy', templates='toy',
             teacher=dict(type='clipgs_plugin.OpenCLIPTeacher', model='toy-clip'))
tests = {
    _name: {'test_evaluator': [_top1],
            'test_dataloader.dataset.pipeline': [
                *_load, *_part, dict(type='clipgs_plugin.SampleGaussians', num=1024, method='fps'), *_pack]}
    for _name, _part in _test_parts.items()}
metrics = {_name: f'{_name}/zero_shot/top1' for _name in tests}

_cut = dict(type='clipgs_plugin.CutGaussians', probability=0.5)
_occlude = dict(type='clipgs_plugin.OccludeGaussians', probability=0.5)
_shade = dict(type='clipgs_plugin.ShadeGaussians', probability=0.5)
rows = [
    dict(title='clipgs_toy', trained=False),
    *[dict(title=_title, options={'train_dataloader.dataset.pipeline': [
          *_load, *_steps, dict(type='clipgs_plugin.SampleGaussians', num=1024), _pack[0],
          dict(type='clipgs_plugin.RotateGaussians', axis='y'), _pack[1]]})
      for _title, _steps in {'whole objects': [], 'cuts': [_cut], 'occlusion': [_occlude],
                             'cuts and occlusion': [_cut, _occlude], 'light': [_shade],
                             'all': [_cut, _occlude, _shade]}.items()]]
compare = [('clipgs_toy', 'all'), ('whole objects', 'cuts'), ('whole objects', 'occlusion'),
           ('whole objects', 'cuts and occlusion'), ('whole objects', 'light'), ('whole objects', 'all')]
