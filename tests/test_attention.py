"""Attention in windows, over real pixels alone and with relative positions."""

import copy

import pytest
import torch
import torch.nn.functional as F
from detectron2_written_out import reference_block, reference_level
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from redraw import backbone, error, images, redraw, timm_vit

from vit_backbones import SimpleFeaturePyramid, ViTFeatBackbone

# No prefix, CLS, CLS with rotary positions and registers, distillation token, rotary alone
MODELS = (
    'vit_base_patch16_siglip_224',
    'vit_tiny_patch16_224',
    'vit_small_patch14_reg4_dinov2',
    'vit_small_patch16_dinov3',
    'deit_tiny_distilled_patch16_224',
    'eva02_tiny_patch14_224',
)
RAW = dict(out_type='raw', norm='none')


@torch.no_grad()
def test_windows_with_relative_positions_equal_detectron2s():
    vit = backbone(
        depth=2,
        width=24,
        img_size=(80, 112),
        with_cls_token=False,
        norm='none',
        window_size=3,
        window_block_indexes=[0],
        use_rel_pos=True,
    )
    x = images(80, 112)
    maps = vit.vit.patch_embed(x) + vit.vit.pos_embed.reshape(1, 5, 7, 24)
    for block, window in zip(vit.vit.blocks, (3, 0), strict=True):
        maps = reference_block(block.state_dict(), maps, window)
    assert error(vit(x)[0], maps.permute(0, 3, 1, 2)) <= 1


@torch.no_grad()
def test_vitdet_equals_detectron2s():
    """Its backbone with windows of 14 under its pyramid, at 512x640."""
    vit = backbone(
        depth=3,
        width=24,
        img_size=(512, 640),
        with_cls_token=False,
        norm='none',
        window_size=14,
        window_block_indexes=[0, 2],
        use_rel_pos=True,
    )
    neck = redraw(SimpleFeaturePyramid(24, 16))
    x = images(512, 640)
    maps = vit.vit.patch_embed(x) + vit.vit.pos_embed.reshape(1, 32, 40, 24)
    for block, window in zip(vit.vit.blocks, (14, 0, 14), strict=True):
        maps = reference_block(block.state_dict(), maps, window)
    for stride, level in zip((4, 8, 16, 32), neck(vit(x)), strict=True):
        expected = reference_level(neck, stride, maps.permute(0, 3, 1, 2))
        assert (level - expected).abs().max() <= 1e-4 * max(1, expected.abs().max())


def allowed(grid, num_prefix, window):
    """(N, N): patches see the prefix and their window, the prefix everything."""
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing='ij')
    number = (rows // window * 1000 + columns // window).flatten()
    sees = F.pad(number[:, None] == number, (num_prefix, 0, num_prefix, 0), value=True)
    return sees


@torch.no_grad()
@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('window', [3, 4])
def test_windows_equal_masked_attention(name, window):
    """Of windows that the grid does not fill, padding is left out by `mask_padding`."""
    options = dict(depth=3, **RAW, window_size=window, window_block_indexes=(0, 2))
    vit = backbone(name, mask_padding=window == 4, **options)
    patch = vit.strides[0]
    x = images(6 * patch, 9 * patch)
    expected = backbone(name, depth=3, **RAW)
    mask = allowed((6, 9), vit.num_prefix_tokens, window)
    for index in (0, 2):
        block = expected.vit.blocks[index]
        attend = block.attn.forward
        block.attn.forward = lambda x, attend=attend, attn_mask=None, **more: attend(
            x, attn_mask=mask, **more
        )
    assert error(vit(x)[0], expected(x)[0]) <= 1


@torch.no_grad()
@pytest.mark.parametrize('name', MODELS)
def test_windows_that_cover_the_image_are_none(name):
    x = images(100, 130)
    vit = backbone(name, depth=2, **RAW, window_size=14, window_block_indexes=(0, 1))
    assert error(vit(x)[0], backbone(name, depth=2, **RAW)(x)[0]) <= 1e-6


@torch.no_grad()
@pytest.mark.parametrize('pos_interp', ['timm', 'original'])
@pytest.mark.parametrize('name', MODELS)
def test_padding_of_a_batch_changes_nothing(name, pos_interp):
    vit = backbone(
        name,
        depth=3,
        pos_interp=pos_interp,
        mask_padding=True,
        window_size=4,
        window_block_indexes=(1,),
    )
    x = images(85, 116)
    alone = vit(x)[0]
    for below, right in ((0, 60), (7, 0), (90, 300)):
        padded = 100 * images(85 + below, 116 + right, batch=2)
        padded[:1, :, :85, :116] = x
        vit.set_image_sizes([(85, 116), padded.shape[-2:]])
        out = vit(padded)[0][:1, :, : alone.shape[2], : alone.shape[3]]
        vit.set_image_sizes(None)
        assert error(out, alone) <= 1


@torch.no_grad()
@pytest.mark.parametrize('size', [(100, 150), (96, 144), (80, 170)])
@pytest.mark.parametrize('out_stride', [None, 16])
def test_behind_a_pyramid_only_the_last_cells_see_the_padding(size, out_stride):
    """Its 3x3 convolutions read the next cells; pooling of an odd side takes one more in."""
    vit = backbone(depth=2, width=24, mask_padding=True, out_stride=out_stride)
    pyramid = redraw(SimpleFeaturePyramid(24, 16)).eval()
    (height, width), x = size, images(*size)
    padded = 100 * images(224, 256)
    padded[..., :height, :width] = x
    alone = pyramid(vit(x))
    vit.set_image_sizes([size])
    for stride, one, other in zip(pyramid.strides, alone, pyramid(vit(padded)), strict=True):
        rows, columns = one.shape[-2:]
        changed = (one - other[..., :rows, :columns]).abs().amax((0, 1))
        edge = 2 if stride == 32 else 1
        assert changed[:-edge, :-edge].max() < 1e-4
        assert min(changed[-1].max(), changed[:, -1].max()) > 0.1


@torch.no_grad()
def test_without_the_sizes_padding_would_be_seen():
    vit = backbone(depth=2, mask_padding=True)
    x = images(96, 96)
    assert error(vit(F.pad(x, (0, 64)))[0][..., :6], vit(x)[0]) > 1000


@torch.no_grad()
def test_relative_positions_of_another_grid_are_resampled():
    """Linearly over the distances, as detectron2's `get_rel_pos`."""
    options = dict(depth=1, width=24, with_cls_token=False, norm='none', use_rel_pos=True)
    small = backbone(img_size=(64, 96), **options)
    large = backbone(img_size=(112, 80), **options)
    weights = small.vit.state_dict() | {'pos_embed': torch.zeros_like(large.vit.pos_embed)}
    for name, side in (('rel_pos_h', 7), ('rel_pos_w', 5)):
        key = f'blocks.0.attn.{name}'
        weights[key] = F.interpolate(weights[key].T[None], size=2 * side - 1, mode='linear')[0].T
    large.vit.load_state_dict(weights)
    small.vit.pos_embed.zero_()
    x = images(112, 80)
    assert error(small(x)[0], large(x)[0]) <= 1


def test_gradients_are_those_of_recomputed_blocks():
    x = images(96, 160)
    options = dict(depth=3, window_size=4, window_block_indexes=(0, 1), use_rel_pos=True)
    plain, saving = backbone(**options), backbone(with_cp=True, **options)
    for vit in (plain, saving):
        vit.train()(x)[0].square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert a.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad)


def test_parameters_keep_their_names():
    stock = set(timm_vit(depth=2).state_dict())
    vit = backbone(depth=2, window_size=4, window_block_indexes=[0], mask_padding=True)
    assert set(vit.vit.state_dict()) == stock
    vit = backbone(depth=2, window_size=4, window_block_indexes=[0], use_rel_pos=True)
    tables = {n: tuple(p.shape) for n, p in vit.vit.state_dict().items() if n not in stock}
    assert tables == {
        'blocks.0.attn.rel_pos_h': (7, 64),
        'blocks.0.attn.rel_pos_w': (7, 64),
        'blocks.1.attn.rel_pos_h': (27, 64),
        'blocks.1.attn.rel_pos_w': (27, 64),
    }


@torch.no_grad()
def test_copies_are_told_the_sizes_too():
    from vit_backbones.hosts.image_sizes import announce

    vit = backbone(depth=1, mask_padding=True)
    average = copy.deepcopy(vit)
    announce([(64, 50), (60, 64)], torch.zeros(2, 3, 64, 64))
    x = images(64, 64, batch=2)
    assert error(average(x)[0], vit(x)[0]) == 0
    assert average._image_sizes.sizes == [(64, 50), (60, 64)]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(window_size=14), 'window_block_indexes=.* go together'),
        (dict(window_block_indexes=(0,)), 'window_size=None and .* go together'),
        (dict(window_size=-1, window_block_indexes=(0,)), 'window_size must be'),
        (
            dict(window_size=7, window_block_indexes=(-1,)),
            'window_block_indexes must be at least 0',
        ),
        (dict(window_size=7, window_block_indexes=(12,)), 'holds 12, .* 12 blocks, 0 to 11'),
        (dict(model_name='swin_tiny_patch4_window7_224', mask_padding=True), 'plain ViT of'),
        (
            dict(model_name='vit_b_16', source='torchvision', use_rel_pos=True),
            'plain ViT of',
        ),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ViTFeatBackbone(**dict(model_name='vit_tiny_patch16_224') | options)


def test_sizes_of_another_batch_are_refused():
    vit = backbone(depth=1, mask_padding=True)
    vit.set_image_sizes([(64, 64)])
    with pytest.raises(ValueError, match=r'set for another batch than \(2, 3, 64, 64\)'):
        vit(images(64, 64, batch=2))
    with pytest.raises(ValueError, match='set_image_sizes'):
        vit(images(48, 64))
    vit.set_image_sizes([(32, 32)], (48, 48))
    with pytest.raises(ValueError, match='another batch'):
        vit(images(64, 64))


def told(vit):
    return vit._image_sizes.sizes, vit._image_sizes.batch_shape


def test_detectors_tell_the_sizes():
    from mmdet.structures import DetDataSample

    from vit_backbones.mmdet import SizedDetDataPreprocessor

    init_default_scope('mmdet')
    vit = backbone(depth=1, mask_padding=True)
    sizes = ((64, 50), (40, 64))
    samples = [DetDataSample(metainfo=dict(img_shape=size)) for size in sizes]
    for sample in samples:
        sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4))
    batch = dict(inputs=[torch.zeros(3, *size) for size in sizes], data_samples=samples)
    SizedDetDataPreprocessor(pad_size_divisor=32)(copy.deepcopy(batch))
    assert told(vit) == ([(64, 50), (40, 64)], (64, 64))
    doubled = dict(type='BatchSyncRandomResize', random_size_range=(128, 128))
    resizing = SizedDetDataPreprocessor(pad_size_divisor=32, batch_augments=[doubled])
    resizing.batch_augments[0]._input_size = (128, 128)
    MessageHub.get_current_instance().update_info('iter', 0)
    resizing(batch, training=True)
    assert told(vit) == ([(128, 100), (80, 128)], (128, 128))


def test_segmenters_tell_the_sizes():
    from mmseg.structures import SegDataSample

    from vit_backbones.mmseg import SizedSegDataPreProcessor

    vit = backbone(depth=1, mask_padding=True)
    batch = dict(
        inputs=[torch.zeros(3, 64, 50), torch.zeros(3, 40, 64)],
        data_samples=[SegDataSample(), SegDataSample()],
    )
    SizedSegDataPreProcessor(size=(64, 64))(batch, training=True)
    assert told(vit) == ([(64, 50), (40, 64)], (64, 64))


@torch.no_grad()
def test_a_segmenter_runs_on_padded_batches_and_slides_over_whole_images():
    from mmseg.models import EncoderDecoder
    from mmseg.structures import SegDataSample

    from vit_backbones.mmseg import SizedSegDataPreProcessor  # noqa: F401

    init_default_scope('mmseg')
    vit = dict(type='ViTFeatBackbone', model_name='vit_tiny_patch16_224', out_indices=1)
    head = dict(type='FCNHead', in_channels=192, channels=192, num_convs=0, concat_input=False)
    segmenter = EncoderDecoder(
        backbone=vit | dict(mask_padding=True),
        decode_head=head | dict(num_classes=3, norm_cfg=None),
        data_preprocessor=dict(type='SizedSegDataPreProcessor', size=(128, 144)),
        test_cfg=ConfigDict(mode='slide', crop_size=(64, 64), stride=(32, 32)),
    )
    redraw(segmenter.backbone.eval())
    x = images(64, 96)
    batch = dict(
        inputs=[x[0], images(128, 130)[0]], data_samples=[SegDataSample(), SegDataSample()]
    )
    padded = segmenter.data_preprocessor(batch, training=True)['inputs']
    maps = segmenter.extract_feat(padded)[0]
    segmenter.data_preprocessor(dict(inputs=[x[0]]))
    assert error(maps[:1, :, :4, :6], segmenter.extract_feat(x)[0]) <= 1
    shapes = dict(ori_shape=(64, 96), img_shape=(64, 96))
    assert segmenter.inference(x, [shapes]).shape == (1, 3, 64, 96)


@torch.no_grad()
@pytest.mark.parametrize(
    'options',
    [
        dict(pool='avg'),
        dict(pool='gem'),
        dict(pool='max'),
        dict(out_type='avg_featmap'),
        dict(out_stride=4),
        dict(model_name='vit_base_patch16_siglip_224', pool='attn'),
        dict(use_rel_pos=True),
        dict(use_rel_pos=True, window_size=9, window_block_indexes=(0,)),
    ],
)
def test_padding_reaches_no_output(options):
    name = options.pop('model_name', 'vit_tiny_patch16_224')
    vit = backbone(name, depth=2, mask_padding=True, **options)
    x = images(100, 130)
    alone = vit(x)[0]
    padded = 100 * images(160, 224, batch=2)
    padded[:1, :, :100, :130] = x
    vit.set_image_sizes([(100, 130), (160, 224)])
    out = vit(padded)[0][:1]
    if out.ndim == 4:
        out = out[:, :, : alone.shape[2], : alone.shape[3]]
    assert error(out, alone) <= 1


@torch.no_grad()
def test_a_wrapped_block_attends_in_windows_too():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    options = dict(window_size=3, window_block_indexes=(0,), use_rel_pos=True)
    vit, x = backbone(depth=2, **options), images(96, 144)
    expected = vit(x)[0]
    for index, block in enumerate(vit.vit.blocks):
        vit.vit.blocks[index] = checkpoint_wrapper(block)
    assert error(vit(x)[0], expected) <= 1


@torch.no_grad()
def test_a_table_for_larger_windows_is_not_squeezed():
    """Windows of 9 over 5 x 7 patches: distances are what they are."""
    options = dict(depth=1, width=24, with_cls_token=False, norm='none', use_rel_pos=True)
    vit = backbone(img_size=(80, 112), window_size=9, window_block_indexes=(0,), **options)
    plain = backbone(img_size=(80, 112), **options)
    weights = vit.vit.state_dict()
    for name, side in (('rel_pos_h', 5), ('rel_pos_w', 7)):
        key = f'blocks.0.attn.{name}'
        weights[key] = weights[key][9 - side : 8 + side]
    plain.vit.load_state_dict(weights)
    x = images(80, 112)
    assert error(vit(x)[0], plain(x)[0]) <= 1


@torch.no_grad()
def test_attention_written_out_by_timm_is_replaced_too(monkeypatch):
    options = dict(depth=2, window_size=3, window_block_indexes=(0,))
    x = images(96, 144)
    expected = backbone(**options)(x)[0]
    from timm.layers import set_fused_attn

    set_fused_attn(False)
    try:
        unfused = backbone(**options)
    finally:
        set_fused_attn(True)
    assert error(unfused(x)[0], expected) <= 1


@torch.no_grad()
def test_runs_under_dynamo():
    vit = backbone(depth=1, window_size=3, window_block_indexes=(0,), use_rel_pos=True)
    x = images(96, 144)
    expected = vit(x)[0]
    assert error(torch.compile(vit, backend='eager')(x)[0], expected) <= 1
    assert error(vit(x)[0], expected) == 0
