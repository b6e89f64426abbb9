# ViT-B/16 of MAE (He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022).
#   drop path and layer decay: detectron2, ViTDet-B on COCO
# Weights (343 MB, cc-by-nc-4.0): https://huggingface.co/timm/vit_base_patch16_224.mae
#   hf download timm/vit_base_patch16_224.mae model.safetensors --local-dir weights
embed_dims = 768
depth = 12
decay_rate = 0.7
preprocess = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
backbone = dict(
    type='ViTFeatBackbone',
    model_name='vit_base_patch16_224.mae',
    pretrained=True,
    drop_path_rate=0.1,
)
