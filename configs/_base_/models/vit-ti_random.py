# ViT-Ti of patches of 8 pixels for the drawn shapes, from random weights.
embed_dims = 192
stride = 8
preprocess = dict(mean=[127.5] * 3, std=[127.5] * 3)
backbone = dict(
    type='ViTFeatBackbone',
    model_name='vit_tiny_patch16_224',
    pretrained=False,  # random weights are meant
    img_size=(128, 192),
    patch_size=8,
    out_indices=3,
    norm='all',
)
