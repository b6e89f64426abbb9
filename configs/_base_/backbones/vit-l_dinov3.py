# ViT-L/16 of DINOv3; drop path and layer decay: those of DINOv2-L
# Weights (1212 MB, dinov3-license): https://huggingface.co/timm/vit_large_patch16_dinov3.lvd1689m
#   hf download timm/vit_large_patch16_dinov3.lvd1689m model.safetensors --local-dir weights
_base_ = 'vit-s_dinov3.py'
embed_dims = 1024
depth = 24
decay_rate = 0.8
backbone = dict(model_name='vit_large_patch16_dinov3.lvd1689m', drop_path_rate=0.4)
