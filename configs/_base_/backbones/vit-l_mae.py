# ViT-L/16 of MAE; drop path and layer decay: detectron2, ViTDet-L on COCO
_base_ = 'vit-b_mae.py'
embed_dims = 1024
depth = 24
decay_rate = 0.8
backbone = dict(model_name='vit_large_patch16_224.mae', drop_path_rate=0.4)
