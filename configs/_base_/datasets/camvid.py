# CamVid (Brostow et al., Pattern Recognition Letters 2009; CC BY-NC 4.0): street scenes of 480x360
# pixels, 11 classes, 255 = void. 367 images to train on, 101 to validate.
# CAMVID_ROOT holds images/{train,val}/*.jpg and annotations/{train,val}/*.png.
_base_ = 'loaders.py'
data_root = '{{$CAMVID_ROOT:data/camvid}}'
crop_size = (352, 480)

metainfo = dict(
    classes=(
        'sky', 'building', 'pole', 'road', 'pavement', 'tree',
        'sign', 'fence', 'car', 'pedestrian', 'bicyclist',
    ),
    palette=[
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ],
)  # fmt: skip

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(480, 360), keep_ratio=True),  # CamVid's own size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=metainfo,
    img_suffix='.jpg',
    seg_map_suffix='.png',
)
train_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline,
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline,
        **dataset,
    ),
)
del dataset
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
