# Heads that tune the encoder on the support of each task, beside those on frozen features. A trial takes up to minutes
# of one core; trials that ended are kept, so that a run can be interrupted and continued.
_base_ = ['clipgs_pointbert-nano_15e_modelnet10-few-shot.py']

frozen = ('patch_encoder', 'refinement', 'position', 'blocks', 'norm', 'projection')
few_shot = dict(
    heads={
        'full fine-tuning': dict(type='clipgs_plugin.FineTuned'),
        'LoRA': dict(type='clipgs_plugin.FineTuned', frozen=frozen, lora=dict(rank=8, alpha=16)),
        'prompts': dict(type='clipgs_plugin.FineTuned', frozen=frozen, num_prompts=10),
    },
    settings=[dict(ways=ways, shots=10) for ways in (5, 10)])
