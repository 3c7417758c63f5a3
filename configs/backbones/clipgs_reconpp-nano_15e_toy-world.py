# ReCon++ on the toy world: sixteen queries attend to the patches, in the small width.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=dict(channels=384),
        backbone=dict(_delete_=True, type='clipgs_plugin.ReConPlusPlus', size='s', depth=2)))
