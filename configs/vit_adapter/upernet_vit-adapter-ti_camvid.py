# A light UPerNet on CamVid, on a ViT-Adapter around a fine-tuned ViT-Ti/16.
#   source: Chen et al., ICLR 2023; DINOv3 (arXiv 2508.10104); data: CamVid, 367 + 101 images
#   command: in README.md
_base_ = '../upernet/upernet_vit-ti_camvid.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='ViTAdapter',
        backbone=dict(out_indices='even4', norm='none', **_base_.backbone),
        num_heads=_base_.embed_dims // 64,
    ),
)
# The adapter is new and learns at the full rate
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'backbone': dict(lr_mult=1.0), 'backbone.backbone': dict(lr_mult=0.1)}
    )
)
