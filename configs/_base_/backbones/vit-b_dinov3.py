# ViT-B/16 of DINOv3; drop path and layer decay: those of DINOv2-B
_base_ = 'vit-s_dinov3.py'
embed_dims = 768
backbone = dict(model_name='vit_base_patch16_dinov3.lvd1689m', drop_path_rate=0.3)
