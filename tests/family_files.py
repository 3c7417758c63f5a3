"""Checkpoints of every family in the format of its training code, with random tensors of the published shapes.

Used tensors have random values. Large unused tensors have only a name and a shape, and take no memory.
"""
import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import family_formulas as formulas
import numpy as np
import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
SMALL = 4096  # maximum size of unused tensors with random values
GAIN = 0.7  # of random matrices; keeps sums over many blocks of the order of 1


@dataclass(frozen=True)
class File:
    """One checkpoint and independent facts about its model.

    Args:
        family: Name of the family in the library.
        formula: Formula of the family.
        heads: Number of attention heads, which no shape reveals.
        used: Shapes of the tensors that the model uses, by whole names.
        dead: Shapes of the tensors that the model does not use.
        wrap: Function from the state dict to the content of the saved file.
        prefix: Prefix of the point-cloud model's names.
        dtype: Type of the used tensors.
        inputs: Input of the model: ``'xyz'``, ``'rgb'`` or ``'gaussians'``.
        finetuned: True for a file fine-tuned for classification.
        patches: Groups, group size and radius of the published model; None if none was published.
        embed_dim: Width of the CLIP space; None without a projection.
        mistakes: Wrong variants of the formula that the test must detect on this file.
    """

    family: str
    formula: type[formulas.Formula]
    heads: int
    used: Shapes
    dead: Shapes
    wrap: Callable[[dict[str, Tensor]], object]
    prefix: str = ''
    dtype: torch.dtype = torch.float32
    inputs: str = 'xyz'
    finetuned: bool = False
    patches: tuple[int, int, float | None] | None = None
    embed_dim: int | None = None
    mistakes: tuple[str, ...] = ('other heads',)

    def state(self, seed: int = 0) -> dict[str, Tensor]:
        """Return all tensors by their names, without ``module.``."""
        generator, counter = torch.Generator().manual_seed(seed), count(1)
        return {name: random_tensor(name, shape, self.dtype, generator, counter)
                if name in self.used or math.prod(shape) <= SMALL else torch.zeros((), dtype=self.dtype).expand(shape)
                for name, shape in (self.used | self.dead).items()}


def random_tensor(name: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator,
                  counter: count) -> Tensor:
    """Draw values that keep activations of the same size from layer to layer."""
    if name.endswith('num_batches_tracked'):
        return torch.tensor(next(counter))
    if name == 'logit_scale':
        return torch.tensor(4.25, dtype=dtype)
    value = torch.rand(shape, generator=generator)
    if name.endswith(('running_var', 'gamma')) or (name.endswith('weight') and len(shape) == 1):
        value = value + 0.5
    elif name.endswith('learnable_temp'):
        value = value + 2
    elif len(shape) < 2 or 1 in shape[:2]:
        value = (value - 0.5) * 0.4
    else:
        fan_in = shape[0] if name.endswith('pc_projection') else math.prod(shape[1:])
        value = (2 * value - 1) * math.sqrt(3 / fan_in) * GAIN
    return value.to(dtype)


# Shapes by name


def below(name: str, shapes: Shapes) -> Shapes:
    return {f'{name}.{key}': shape for key, shape in shapes.items()}


def linear(name: str, out: int, inner: int, *kernel: int, bias: bool = True) -> Shapes:
    """Return the shapes of a Linear, or of a convolution with the given kernel."""
    return {f'{name}.weight': (out, inner, *kernel)} | ({f'{name}.bias': (out,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def batch_norm(name: str, width: int) -> Shapes:
    return norm(name, width) | {f'{name}.running_mean': (width,), f'{name}.running_var': (width,),
                                f'{name}.num_batches_tracked': ()}


def point_net(name: str, channels: int, out: int, widths: tuple[int, int, int] = (128, 256, 512)) -> Shapes:
    first, middle, second = widths
    return below(name, {
        **linear('first_conv.0', first, channels, 1), **batch_norm('first_conv.1', first),
        **linear('first_conv.3', middle, first, 1),
        **linear('second_conv.0', second, 2 * middle, 1), **batch_norm('second_conv.1', second),
        **linear('second_conv.3', out, second, 1)})


def position(name: str, width: int) -> Shapes:
    return linear(f'{name}.0', 128, 3) | linear(f'{name}.2', width, 128)


def mlp(name: str, width: int, hidden: int) -> Shapes:
    return linear(f'{name}.fc1', hidden, width) | linear(f'{name}.fc2', width, hidden)


def blocks(name: str, depth: int, block: Shapes) -> Shapes:
    return {f'{name}.{i}.{key}': shape for i in range(depth) for key, shape in block.items()}


def point_bert_block(width: int = 384) -> Shapes:
    return {**norm('norm1', width), **linear('attn.qkv', 3 * width, width, bias=False),
            **linear('attn.proj', width, width), **norm('norm2', width), **mlp('mlp', width, 4 * width)}


def tokens(width: int, *names: str) -> Shapes:
    return {name: (1, 1, width) for name in names}


def transformer(width: int, depth: int) -> Shapes:
    return {**position('pos_embed', width), **blocks('blocks.blocks', depth, point_bert_block(width)),
            **norm('norm', width)}


def point_bert(depth: int, channels: int = 3) -> Shapes:
    return {**point_net('encoder', channels, 256), **linear('reduce_dim', 384, 256),
            **tokens(384, 'cls_token', 'cls_pos'), **transformer(384, depth)}


def point_mae(depth: int, channels: int = 3, class_token: bool = False) -> Shapes:
    return {**point_net('encoder', channels, 384), **transformer(384, depth),
            **(tokens(384, 'cls_token', 'cls_pos') if class_token else {})}


def point_mae_decoder(name: str = 'MAE_decoder', width: int = 384) -> Shapes:
    return {**tokens(width, 'mask_token'), **position('decoder_pos_embed', width),
            **blocks(f'{name}.blocks', 4, point_bert_block(width)), **norm(f'{name}.norm', width),
            **linear('increase_dim.0', 96, width, 1)}


def deep_head(width: int, classes: int = 40) -> Shapes:
    """Return the shapes of the classifier of Point-MAE and related families."""
    return below('cls_head_finetune', {
        **linear('0', 256, width), **batch_norm('1', 256), **linear('4', 256, 256), **batch_norm('5', 256),
        **linear('8', classes, 256)})


def dvae() -> Shapes:
    def dgcnn(channels: int, out: int) -> Shapes:
        sizes = [(256, 256), (512, 512), (512, 1024), (1024, 1024)]
        shapes = linear('input_trans', 128, channels, 1)
        for i, (wide, inner) in enumerate(sizes, 1):
            shapes |= linear(f'layer{i}.0', wide, inner, 1, 1, bias=False) | norm(f'layer{i}.1', wide)
        return shapes | linear('layer5.0', out, 2304, 1, bias=False) | norm('layer5.1', out)

    return {**point_net('encoder', 3, 256), **below('dgcnn_1', dgcnn(256, 8192)), 'codebook': (8192, 256),
            **below('dgcnn_2', dgcnn(256, 256)),
            **below('decoder.mlp', {**linear('0', 1024, 256), **linear('2', 1024, 1024), **linear('4', 24, 1024)}),
            **below('decoder.final_conv', {
                **linear('0', 512, 261, 1), **batch_norm('1', 512), **linear('3', 512, 512, 1),
                **batch_norm('4', 512), **linear('6', 3, 512, 1)})}


# Wrappers that training code puts around a state dict


def parallel(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the prefix of DistributedDataParallel to the names."""
    return {f'module.{key}': value for key, value in state.items()}


def optimizer() -> dict:
    return {'state': {0: {'step': torch.tensor(9.0), 'exp_avg': torch.ones(4), 'exp_avg_sq': torch.ones(4)}},
            'param_groups': [{'lr': 1e-3, 'betas': (0.9, 0.999), 'params': [0]}]}


def base_model(state: dict[str, Tensor]) -> dict:
    return {'base_model': parallel(state), 'optimizer': optimizer(), 'epoch': 300,
            'metrics': {'acc': np.float64(91.5)}, 'best_metrics': {'acc': np.float64(92.0)}}


def bare_base_model(state: dict[str, Tensor]) -> dict:
    """Wrap the state dict of a training run on one GPU."""
    return {'base_model': state, 'optimizer': optimizer(), 'epoch': 7, 'metrics': {'acc': 91.5}, 'best_metrics': {}}


def ulip_file(state: dict[str, Tensor]) -> dict:
    return {'epoch': 250, 'state_dict': parallel(state), 'optimizer': optimizer(), 'scaler': {'scale': 65536.0},
            'best_acc1': 60.2, 'args': argparse.Namespace(lr=1e-3, model='ULIP_PointBERT', betas=(0.9, 0.98))}


def deepspeed(state: dict[str, Tensor]) -> dict:
    return {'module': state, 'buffer_names': [], 'optimizer': None, 'param_shapes': None, 'lr_scheduler': None,
            'global_steps': 100, 'skipped_steps': 0, 'dp_world_size': 8, 'mp_world_size': 1, 'epoch': 200,
            'best_acc1': 53.5}


def openshape_file(state: dict[str, Tensor]) -> dict:
    state = dict(state)
    temperature = {'module.logit_scale': state.pop('logit_scale')}
    return {'state_dict': parallel(state), 'logit_scale': temperature,
            'text_proj': parallel(linear_tensors(1280)), 'image_proj': parallel(linear_tensors(1280)),
            'optimizer': optimizer(), 'scheduler': None, 'epoch': 200, 'step': 12345, 'best_img_contras_acc': 0,
            'best_lvis_acc': torch.tensor(46.8)}


def linear_tensors(width: int) -> dict[str, Tensor]:
    return {'weight': torch.zeros(()).expand(width, width), 'bias': torch.zeros(width)}


# Families


def point_bert_pretrained(depth: int = 12) -> File:
    model = point_bert(depth)
    momentum = {**model, **tokens(384, 'mask_token'), **linear('lm_head', 8192, 384), **linear('cls_head.0', 512, 384),
                **linear('cls_head.2', 512, 512)}
    only_for_training = {key: shape for key, shape in momentum.items() if key not in model}
    return File(
        'point_bert', formulas.PointBERT, 6, below('transformer_q', model),
        {**below('transformer_q', only_for_training), **below('transformer_k', momentum), **below('dvae', dvae()),
         'queue': (512, 16384), 'queue_ptr': (1,)},
        base_model, 'transformer_q.', patches=(64, 32, None), mistakes=formulas.PointBERT.mistakes)


def point_bert_finetuned(depth: int = 4) -> File:
    return File(
        'point_bert', formulas.PointBERT, 6, point_bert(depth),
        linear('cls_head_finetune.0', 256, 768) | linear('cls_head_finetune.3', 40, 256), bare_base_model,
        finetuned=True)


def point_mae_pretrained(depth: int = 6) -> File:
    return File('point_mae', formulas.PointMAE, 6, below('MAE_encoder', point_mae(depth)), point_mae_decoder(),
                base_model, 'MAE_encoder.', patches=(64, 32, None), mistakes=formulas.PointMAE.mistakes)


def point_mae_finetuned(depth: int = 4) -> File:
    return File('point_mae', formulas.PointMAE, 6, point_mae(depth, class_token=True), deep_head(768), base_model,
                finetuned=True)


def clip_tower(width: int, layers: int) -> Shapes:
    """Return the shapes of a text transformer of CLIP."""
    block = {'attn.in_proj_weight': (3 * width, width), 'attn.in_proj_bias': (3 * width,),
             **linear('attn.out_proj', width, width), **norm('ln_1', width), **norm('ln_2', width),
             **linear('mlp.c_fc', 4 * width, width), **linear('mlp.c_proj', width, 4 * width)}
    return {'positional_embedding': (77, width), 'token_embedding.weight': (49408, width),
            **blocks('transformer.resblocks', layers, block), **norm('ln_final', width),
            'text_projection': (width, 512)}


def ulip_1(depth: int = 4) -> File:
    image = {**tokens(768, 'cls_token'), 'pos_embed': (1, 197, 768), **linear('patch_embed.proj', 768, 3, 16, 16),
             **blocks('blocks', 12, {**point_bert_block(768), 'attn.qkv.bias': (2304,)}), **norm('norm', 768)}
    return File(
        'ulip', formulas.PointBERT, 6, {**below('point_encoder', point_bert(depth)), 'pc_projection': (768, 512)},
        {'logit_scale': (), 'image_projection': (768, 512), **below('visual', image), **clip_tower(512, 12)},
        ulip_file, 'point_encoder.', patches=(512, 32, None), embed_dim=512)


def ulip_2(depth: int = 3) -> File:
    image = {'class_embedding': (1664,), 'positional_embedding': (257, 1664), 'proj': (1664, 1280),
             'conv1.weight': (1664, 3, 14, 14), **norm('ln_pre', 1664), **norm('ln_post', 1664)}
    return File(
        'ulip', formulas.PointBERT, 6,
        {**below('point_encoder', point_bert(depth, channels=6)), 'pc_projection': (768, 1280)},
        {'logit_scale': (), 'open_clip_model.logit_scale': (), **below('open_clip_model.visual', image),
         **below('open_clip_model', clip_tower(1280, 2))},
        ulip_file, 'point_encoder.', inputs='rgb', patches=(512, 32, None), embed_dim=1280,
        mistakes=formulas.PointBERT.mistakes)


# Width, heads, hidden width of an MLP, form of a block, positions and classes of the image model in the file.
UNI3D_SIZES = {
    'ti': (192, 3, 512, 'glu', 257, 0),
    's': (384, 6, 1024, 'glu', 257, 0),
    'b': (768, 12, 2048, 'swiglu', 1025, 1000),
    'l': (1024, 16, 2730, 'swiglu', 1025, 1000),
    'g': (1408, 16, 6144, 'gelu', 1601, 1000),
}


def uni3d_block(width: int, hidden: int, form: str) -> Shapes:
    shapes = {**norm('norm1', width), **norm('norm2', width), **linear('attn.proj', width, width),
              **linear('mlp.fc2', width, hidden)}
    if form == 'swiglu':
        return {**shapes, **linear('attn.q_proj', width, width), **linear('attn.k_proj', width, width, bias=False),
                **linear('attn.v_proj', width, width), **linear('mlp.fc1_g', hidden, width),
                **linear('mlp.fc1_x', hidden, width), **norm('mlp.norm', hidden)}
    return {**shapes, 'attn.q_bias': (width,), 'attn.v_bias': (width,),
            **linear('attn.qkv', 3 * width, width, bias=False),
            **linear('mlp.fc1', 2 * hidden if form == 'glu' else hidden, width)}


def uni3d(size: str, depth: int) -> File:
    width, heads, hidden, form, positions, classes = UNI3D_SIZES[size]
    model = {**point_net('encoder', 6, 512), **linear('encoder2trans', width, 512),
             **linear('trans2embed', 1024, width), **tokens(width, 'cls_token', 'cls_pos'),
             **position('pos_embed', width), **blocks('visual.blocks', depth, uni3d_block(width, hidden, form)),
             **norm('visual.fc_norm', width)}
    image = {**tokens(width, 'cls_token'), 'pos_embed': (1, positions, width),
             **linear('patch_embed.proj', width, 3, 14, 14), **(linear('head', classes, width) if classes else {})}
    mistakes = formulas.Uni3D.mistakes if size == 'ti' else ('other heads',)
    return File('uni3d', formulas.Uni3D, heads, below('point_encoder', model),
                {'logit_scale': (), **below('point_encoder.visual', image)}, deepspeed, 'point_encoder.',
                torch.float16, 'rgb', patches=(512, 64, None), embed_dim=1024, mistakes=mistakes)


# Width, depth, heads, hidden width of an MLP, width of a token, width of the CLIP space, and published patches if any.
OPENSHAPE_SCALINGS = {
    1: (256, 6, 4, 1024, 96, 1280, (64, 256, 0.4)),
    2: (512, 4, 8, 1024, 128, 1280, None),
    3: (512, 4, 8, 1024, 128, 768, (64, 256, 0.4)),
    4: (512, 12, 8, 1536, 256, 1280, (384, 64, 0.2)),
    5: (768, 2, 12, 2304, 256, 1280, None),
    6: (768, 2, 12, 3072, 256, 1280, None),
}


def openshape(scaling: int, prefix: str = 'ppat.', projection: str = 'proj',
              wrap: Callable[[dict], object] = openshape_file) -> File:
    width, depth, heads, hidden, channels, embed_dim, published = OPENSHAPE_SCALINGS[scaling]
    model = {'cls_token': (width,), **linear('lift.0', width, 3 + channels, 1), **norm('lift.2', width)}
    for i, (inner, out) in enumerate([(9, 64), (64, 64), (64, channels)]):
        model |= linear(f'sa.mlp_convs.{i}', out, inner, 1, 1) | batch_norm(f'sa.mlp_bns.{i}', out)
    model |= blocks('transformer.layers', depth, {
        **norm('0.norm', width), **linear('0.fn.to_qkv', 3 * width, width, bias=False),
        **linear('0.fn.to_out.0', width, width), **norm('1.norm', width),
        **linear('1.fn.net.0', hidden, width), **linear('1.fn.net.3', width, hidden)})
    used = {prefix + key: shape for key, shape in model.items()}
    return File('openshape', formulas.OpenShape, heads,
                used | (linear(projection, embed_dim, width) if projection else {}),
                {'logit_scale': ()} if wrap is openshape_file else {}, wrap, prefix, inputs='rgb',
                patches=published, embed_dim=embed_dim if projection else None,
                mistakes=formulas.OpenShape.mistakes if scaling == 4 else ('other heads',))


def recon_model(depth: int) -> Shapes:
    block = {**point_bert_block(), **norm('norm1_contrast', 384), **norm('norm2_contrast', 384),
             **mlp('mlp_contrast', 384, 1536), **linear('attn_contrast.q', 384, 384, bias=False),
             **linear('attn_contrast.kv', 768, 384, bias=False), **linear('attn_contrast.proj', 384, 384)}
    names = [f'{name}_{what}' for name in formulas.RECON_TOKENS for what in ('token', 'pos')]
    return {**point_net('encoder', 3, 384), **tokens(384, *names), **position('pos_embed', 384),
            **blocks('blocks.blocks', depth, block), **norm('norm', 384)}


def recon_pretrained(depth: int = 4) -> File:
    """Make a file like ``ckpt-last``, which keeps the frozen towers."""
    return File(
        'recon', formulas.ReCon, 6, below('MAE_encoder', recon_model(depth)),
        {**point_mae_decoder(), **linear('img_proj', 768, 384), **linear('text_proj', 512, 384),
         **tokens(768, 'img_encoder.model.cls_token'), **linear('img_encoder.model.blocks.0.attn.qkv', 2304, 768),
         **below('text_encoder', clip_tower(512, 12))},
        base_model, 'MAE_encoder.', patches=(64, 32, None), mistakes=formulas.ReCon.mistakes)


def recon_zeroshot(depth: int = 3) -> File:
    """Make a file whose two projections lead into the space of one CLIP model."""
    return File(
        'recon', formulas.ReCon, 6,
        {**below('MAE_encoder', recon_model(depth)), **linear('img_proj', 512, 384), **linear('text_proj', 512, 384)},
        {**point_mae_decoder(), **below('text_encoder', clip_tower(512, 12))}, base_model, 'MAE_encoder.',
        patches=(64, 32, None), embed_dim=512)


def recon_finetuned(depth: int = 2) -> File:
    return File('recon', formulas.ReCon, 6, recon_model(depth), deep_head(4 * 384), base_model, finetuned=True)


# Width, heads, hidden width of an MLP, LayerScale.
RECON_PLUS_PLUS_SIZES = {'s': (384, 6, 1536, True), 'b': (768, 12, 3072, False), 'l': (1024, 16, 4096, False),
                         'g': (1408, 16, 6144, False)}


def recon_plus_plus(size: str, depth: int) -> File:
    width, heads, hidden, scaled = RECON_PLUS_PLUS_SIZES[size]
    block = {**norm('norm1', width), **norm('norm2', width), **linear('attn.proj', width, width),
             **mlp('mlp', width, hidden), **({'ls1.gamma': (width,), 'ls2.gamma': (width,)} if scaled else {})}
    local = {**block, **linear('attn.qkv', 3 * width, width)}
    cross = {**block, **linear('attn.q', width, width), **linear('attn.kv', 2 * width, width)}
    model = {**point_net('embed', 6, width), **position('pos_embed', width), 'global_query': (1, 16, width),
             **blocks('encoder.blocks.local_blocks', depth, local),
             **blocks('encoder.blocks.global_blocks', depth, cross),
             **norm('encoder.ln_f1', width), **norm('encoder.ln_f2', width)}
    decoder = {**norm('norm', width), **position('decoder_pos_embed', width), **tokens(width, 'decoder.mask_token'),
               **blocks('decoder.blocks', 4, {**block, **linear('attn.qkv', 3 * width, width)}),
               **norm('decoder.ln_f', width), **linear('decoder.increase_dim.0', 192, width, 1)}
    mistakes = formulas.ReConPlusPlus.mistakes if size == 's' else ('other heads',)
    return File('recon_plus_plus', formulas.ReConPlusPlus, heads,
                {**below('model', model), **linear('img_proj', 1280, width), **linear('text_proj', 1280, width)},
                below('model', decoder), base_model, 'model.', inputs='rgb', patches=(512, 32, None), embed_dim=1280,
                mistakes=mistakes)


def gaussian_mae(soft: bool, depth: int = 4) -> File:
    model, heads = point_mae(depth, channels=14), {}
    dead = {}
    if soft:
        model = {**point_net('encoder', 14, 384, (128, 128, 256)), **transformer(384, depth),
                 'encoder.n3_agg.learnable_temp': (32,), 'encoder.n3_agg.log_temp_bias': (32,)}
        dead = {'MAE_encoder.encoder.n3_agg.nnn.log_temp': (1,)}
    for name, channels in (('opacity', 1), ('scale', 3), ('rotation', 4), ('sh', 3)):
        heads |= linear(f'{name}_head.0', 32 * channels, 384, 1)
    return File('gaussian_mae', formulas.SoftGaussianMAE if soft else formulas.PointMAE, 6,
                below('MAE_encoder', model), {**point_mae_decoder(), **heads, **dead}, base_model, 'MAE_encoder.',
                inputs='gaussians', patches=(64, 40 if soft else 32, None),
                mistakes=formulas.SoftGaussianMAE.mistakes if soft else ('other heads',))


def gaussian_jepa(depth: int = 4) -> File:
    model = point_mae(depth, channels=14)
    two = linear('0', 384, 384) | linear('2', 384, 384)
    predictor = {**linear('pred_input_proj', 192, 384), **position('predictor_pos_embed', 192),
                 **tokens(192, 'query_token'), **blocks('predictor.blocks', 4, point_bert_block(192)),
                 **norm('predictor.norm', 192), **linear('pred_geo_out', 384, 192),
                 **linear('pred_app_out', 384, 192)}
    return File('gaussian_mae', formulas.PointMAE, 6, below('JEPA_encoder', model),
                {**below('teacher_encoder', model), **below('teacher_geo_proj', two),
                 **below('teacher_app_proj', two), **predictor},
                base_model, 'JEPA_encoder.', inputs='gaussians', patches=(64, 32, None))


FILES = {
    'point-bert': point_bert_pretrained(),
    'point-bert-finetuned': point_bert_finetuned(),
    'point-mae': point_mae_pretrained(),
    'point-mae-finetuned': point_mae_finetuned(),
    'ulip-1': ulip_1(),
    'ulip-2': ulip_2(),
    'uni3d-ti': uni3d('ti', 12),
    'uni3d-s': uni3d('s', 6),
    'uni3d-b': uni3d('b', 2),
    'uni3d-l': uni3d('l', 2),
    'uni3d-g': uni3d('g', 1),
    **{f'openshape-{scaling}': openshape(scaling) for scaling in OPENSHAPE_SCALINGS},
    # The files for ViT-L/14 and ViT-B/32 have an additional prefix; the second has no projection.
    'openshape-vitl14': openshape(3, 'pc_encoder.ppat.', 'pc_encoder.proj', dict),
    'openshape-vitb32': openshape(3, 'pc_encoder.', '', dict),
    'recon': recon_pretrained(),
    'recon-zeroshot': recon_zeroshot(),
    'recon-finetuned': recon_finetuned(),
    'recon-plus-plus-s': recon_plus_plus('s', 3),
    'recon-plus-plus-b': recon_plus_plus('b', 2),
    'recon-plus-plus-l': recon_plus_plus('l', 1),
    'recon-plus-plus-g': recon_plus_plus('g', 1),
    'gaussian-mae': gaussian_mae(soft=True),
    'gaussian-mae-plain': gaussian_mae(soft=False),
    'gaussian-jepa': gaussian_jepa(),
}
