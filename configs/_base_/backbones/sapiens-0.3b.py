# Sapiens-0.3B, a ViT-L/16 for images of people (Khirodkar et al., Sapiens: Foundation for Human
# Vision Models, ECCV 2024). Its weights are published as files: SAPIENS names the one.
#   drop path, layer decay, no CLS token: Sapiens' repository, segmentation of Goliath
# Weights (cc-by-nc-4.0): https://huggingface.co/facebook/sapiens
#   hf download facebook/sapiens --local-dir weights \
#     sapiens_host/pretrain/checkpoints/sapiens_0.3b/sapiens_0.3b_epoch_1600_clean.pth
#   mv weights/sapiens_host/pretrain/checkpoints/sapiens_0.3b/*.pth weights
embed_dims = 1024
depth = 24
decay_rate = 0.85
preprocess = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
backbone = dict(
    type='ViTFeatBackbone',
    source='sapiens',
    model_name='sapiens_0.3b',
    checkpoint='{{$SAPIENS:weights/sapiens_0.3b_epoch_1600_clean.pth}}',
    with_cls_token=False,
    drop_path_rate=0.0,
)
