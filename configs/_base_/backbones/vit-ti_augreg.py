# ViT-Ti/16 of ImageNet (Steiner et al., How to Train Your ViT?, TMLR 2022): small enough for a CPU.
#   layer decay: that of ViT-S; VIT_TINY is a file of weights in timm's or any other project's keys.
#   For other weights than AugReg's, change the tag of the name and `preprocess`
# Weights (23 MB, apache-2.0): https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k
#   hf download timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k model.safetensors --local-dir weights
#   mv weights/model.safetensors weights/vit_tiny_patch16_224.safetensors
embed_dims = 192
depth = 12
decay_rate = 0.7
preprocess = dict(mean=[127.5] * 3, std=[127.5] * 3)
backbone = dict(
    type='ViTFeatBackbone',
    model_name='vit_tiny_patch16_224.augreg_in21k_ft_in1k',
    checkpoint='{{$VIT_TINY:weights/vit_tiny_patch16_224.safetensors}}',
)
