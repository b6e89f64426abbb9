# ViT-B/16 of DINOv3; drop path and layer decay: those of DINOv2-B
# Weights (343 MB, dinov3-license): https://huggingface.co/timm/vit_base_patch16_dinov3.lvd1689m
#   hf download timm/vit_base_patch16_dinov3.lvd1689m model.safetensors --local-dir weights
_base_ = 'vit-s_dinov3.py'
embed_dims = 768
backbone = dict(model_name='vit_base_patch16_dinov3.lvd1689m', drop_path_rate=0.3)
