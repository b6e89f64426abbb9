# The linear head on a fine-tuned ViT whose blocks learn at rates that fall from the head down, to a
# geometric mean of the tenth at which all of them learn without layer decay.
_base_ = 'linear-finetuned_vit-ti_camvid.py'
optim_wrapper = dict(
    constructor='ViTLayerDecayConstructor',
    paramwise_cfg=dict(decay_rate=_base_.decay_rate, custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
