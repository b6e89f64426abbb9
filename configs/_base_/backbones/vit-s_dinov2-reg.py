# ViT-S of DINOv2 with registers (Darcet et al., Vision Transformers Need Registers, ICLR 2024), its
# patches of 14 pixels resampled to 16, as EoMT (Kerssies et al., CVPR 2025) takes it.
#   layer decay: EoMT, which has no drop path
# Weights (88 MB, apache-2.0): https://huggingface.co/timm/vit_small_patch14_reg4_dinov2.lvd142m
#   hf download timm/vit_small_patch14_reg4_dinov2.lvd142m model.safetensors --local-dir weights
embed_dims = 384
depth = 12
decay_rate = 0.8
preprocess = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
backbone = dict(
    type='ViTFeatBackbone',
    model_name='vit_small_patch14_reg4_dinov2.lvd142m',
    pretrained=True,
    patch_size=16,
)
