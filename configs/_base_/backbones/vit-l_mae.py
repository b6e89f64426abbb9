# ViT-L/16 of MAE; drop path and layer decay: detectron2, ViTDet-L on COCO
# Weights (1213 MB, cc-by-nc-4.0): https://huggingface.co/timm/vit_large_patch16_224.mae
#   hf download timm/vit_large_patch16_224.mae model.safetensors --local-dir weights
_base_ = 'vit-b_mae.py'
embed_dims = 1024
depth = 24
decay_rate = 0.8
backbone = dict(model_name='vit_large_patch16_224.mae', drop_path_rate=0.4)
