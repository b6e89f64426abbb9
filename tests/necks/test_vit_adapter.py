"""ViTAdapter against its computation written out here."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from redraw import backbone, error, images, redraw

from vit_backbones import ViTAdapter
from vit_backbones.benchmark.counting import counted
from vit_backbones.hosts import deformable_layers

NAMES = ('vit_tiny_patch16_224', 'vit_small_patch14_reg4_dinov2', 'vit_tiny_patch16_224')
SMALL = dict(conv_channels=6, num_heads=3, num_points=2)


def adapter(name='vit_tiny_patch16_224', *, frozen_stages=-1, **options):
    vit = backbone(
        name, depth=4, width=24, out_indices='even4', norm='none', frozen_stages=frozen_stages
    )
    return redraw(ViTAdapter(vit, **SMALL, norm_cfg=dict(type='LN2d'), **options)).eval()


def norm(x, layer):
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, 1e-6)


def looked_at(attention, query, places, values):
    """Deformable attention of each query (N, C) over values (h, w, C'), one place at a time."""
    heads, points = attention.num_heads, attention.num_points
    height, width = values.shape[:2]
    offsets = attention.sampling_offsets(query).reshape(-1, heads, points, 2)
    weights = attention.attention_weights(query).reshape(-1, heads, points).softmax(-1)
    values = attention.value_proj(values).unflatten(2, (heads, -1)).permute(2, 3, 0, 1)
    out = []
    for head in range(heads):
        at = places[:, None] + offsets[:, head] / torch.tensor([width, height])
        seen = F.grid_sample(values[head][None], 2 * at[None] - 1, align_corners=False)[0]
        out.append((seen * weights[:, head]).sum(-1).T)  # (d, N, points) -> (N, d)
    return attention.output_proj(torch.cat(out, dim=-1))


def written_out(model, x):
    """The pyramid of one image."""
    height, width = x.shape[-2:]
    prior = model.prior
    maps = [prior.stem(x)]
    for stage in prior.stages:
        maps.append(stage(maps[-1]))
    maps = [project(m) for project, m in zip(prior.projections, maps, strict=True)]
    patch = model.backbone.strides[0]
    layers = model.backbone(x)
    rows, columns = layers[0].shape[-2:]
    queries, places = [], []
    for stride, m, embed in zip((8, 16, 32), maps[1:], model.level_embed, strict=True):
        for i in range(m.shape[2]):
            for j in range(m.shape[3]):
                queries.append(m[0, :, i, j] + embed)
                y, below = (i + 0.5) * stride, rows * patch
                places.append([(j + 0.5) * stride / (columns * patch), y / below])
    queries, places = torch.stack(queries), torch.tensor(places)
    counts = [m[0, 0].numel() for m in maps[1:]]
    for part, layer in zip(model.extractors, [*layers, layers[-1], layers[-1]], strict=True):
        values = norm(layer[0].permute(1, 2, 0), part.map_norm)
        queries = queries + looked_at(
            part.attention, norm(queries, part.query_norm), places, values
        )
        hidden = part.fc1(norm(queries, part.ffn_norm)).split(counts)
        mixed = [
            part.dwconv(h.T.reshape(1, -1, *m.shape[2:])).flatten(2)[0].T
            for h, m in zip(hidden, maps[1:], strict=True)
        ]
        queries = queries + part.fc2(F.gelu(torch.cat(mixed)))
    parts = queries.split(counts)
    maps[1:] = [p.T.reshape(m.shape) for p, m in zip(parts, maps[1:], strict=True)]
    maps[0] = maps[0] + model.up(maps[1])[..., : maps[0].shape[2], : maps[0].shape[3]]
    out = []
    for stride, m, layer, last in zip((4, 8, 16, 32), maps, layers, model.norms, strict=True):
        for i in range(m.shape[2]):
            for j in range(m.shape[3]):
                y = (i + 0.5) * stride / patch / rows
                x = (j + 0.5) * stride / patch / columns
                at = torch.tensor([[[[x, y]]]]) * 2 - 1
                seen = F.grid_sample(layer, at, align_corners=False, padding_mode='border')
                m[..., i, j] += seen[..., 0, 0]
        out.append(norm(m.permute(0, 2, 3, 1), last).permute(0, 3, 1, 2))
        assert m.shape[-2:] == (-(-height // stride), -(-width // stride))
    return out


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 96), (75, 50)])
@pytest.mark.parametrize('name', sorted(set(NAMES)))
def test_equals_what_is_written_out(name, size):
    model, x = adapter(name), images(*size)
    for out, expected in zip(model(x), written_out(model, x), strict=True):
        assert error(out, expected) <= 1


def test_gradients_reach_the_vit():
    model = adapter().train()
    sum(m.square().sum() for m in model(images(64, 96))).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_gradients_stop_at_a_frozen_vit():
    model = adapter(frozen_stages=4).train()
    sum(m.square().sum() for m in model(images(64, 96))).backward()
    without = {n.split('.')[0] for n, p in model.named_parameters() if p.grad is None}
    assert without == {'backbone'}


@torch.no_grad()
def test_it_waits_for_nothing_that_its_vit_does_not_wait_for():
    model, x = adapter(), images(75, 50)
    whole, vit = counted(lambda: model(x)), counted(lambda: model.backbone(x))
    assert whole.waits == vit.waits
    assert whole.operators > vit.operators


@torch.no_grad()
@pytest.mark.parametrize('halved', [False, True])
def test_places_are_those_of_fp32_in_bf16(monkeypatch, halved):
    """A bf16 number is off by up to 1/512: half a pixel on a map 256 wide."""
    seen, attend = [], deformable_layers.deformable_attention

    def watched(value, shapes, places, weights, *, grids):
        seen.append((value.dtype, places))
        return attend(value, shapes, places, weights, grids=grids)

    monkeypatch.setattr(deformable_layers, 'deformable_attention', watched)
    model, x = adapter(), images(75, 50)
    for part in model.extractors:  # every query looks at its own place
        torch.nn.init.zeros_(part.attention.sampling_offsets.weight)
        torch.nn.init.zeros_(part.attention.sampling_offsets.bias)
    model(x)
    if halved:
        model.bfloat16()(x.bfloat16())
    else:
        with torch.autocast('cpu', torch.bfloat16):
            model(x)
    assert [dtype for dtype, _ in seen] == [torch.float32] * 6 + [torch.bfloat16] * 6
    for (_, expected), (_, found) in zip(seen[:6], seen[6:], strict=True):
        assert torch.equal(found, expected)


def test_builds_from_a_config():
    vit = dict(type='ViTFeatBackbone', model_name='vit_tiny_patch16_224', out_indices='even4')
    model = MODELS.build(dict(type='ViTAdapter', backbone=vit, num_heads=6))
    assert (model.out_channels, model.strides) == ((192,) * 4, (4, 8, 16, 32))
    assert model.preprocess == model.backbone.preprocess
    name = 'backbone.backbone.vit.blocks.3.norm1.weight'
    assert model.get_layer_depth(name, 'backbone.') == (4, 14)
    assert model.get_layer_depth('backbone.up.weight', 'backbone.') == (13, 14)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(out_indices=-1), r"channels \[192\]: set its out_indices='even4'"),
        (dict(model_name='pvt_v2_b0', out_indices=(0, 1, 2, 3)), 'four maps of equal channels'),
        (dict(out_type='raw'), "takes feature maps, the backbone has out_type='raw'"),
        (dict(heads=7), 'num_heads=7 does not divide the 192 channels'),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    heads = options.pop('heads', 6)
    vit = dict(type='ViTFeatBackbone', model_name='vit_tiny_patch16_224', out_indices='even4')
    with pytest.raises(ValueError, match=message):
        ViTAdapter(vit | options, num_heads=heads)
