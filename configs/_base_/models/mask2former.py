# Mask2Former (Cheng et al., CVPR 2022) as published: 256 channels, 6 deformable encoder and 9
# decoder layers. See mask2former_light.py.
_base_ = 'mask2former_light.py'
attention = dict(embed_dims=256)
model = dict(
    neck=dict(out_channels=256),
    panoptic_head=dict(
        in_channels=[256] * 4,
        feat_channels=256,
        out_channels=256,
        num_queries=200,
        pixel_decoder=dict(
            encoder=dict(
                num_layers=6,
                layer_cfg=dict(
                    self_attn_cfg=attention,
                    ffn_cfg=dict(embed_dims=256, feedforward_channels=1024),
                ),
            ),
            positional_encoding=dict(num_feats=128),
        ),
        positional_encoding=dict(num_feats=128),
        transformer_decoder=dict(
            num_layers=9,
            layer_cfg=dict(
                self_attn_cfg=attention,
                cross_attn_cfg=attention,
                ffn_cfg=dict(embed_dims=256, feedforward_channels=2048),
            ),
        ),
    ),
    train_cfg=dict(num_points=12544),
    test_cfg=dict(max_per_image=100),
)
