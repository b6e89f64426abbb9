# The built-in drawn shapes, in COCO's, panoptic and semantic form; see vit_backbones/shapes.py.
# tools/train.py and tools/test.py draw them first, by `write_shapes(**builtin_data)`.
_base_ = 'loaders.py'
data_root = 'data/shapes/'
builtin_data = dict(root='data/shapes', num_train=1600, num_val=200, seed=0)
shapes = ('circle', 'square', 'triangle', 'hexagon', 'star', 'cross', 'ring', 'crescent')
shape_colors = [
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200),
    (245, 130, 48), (145, 30, 180), (70, 240, 240), (240, 50, 230),
]  # fmt: skip
background_color = (40, 40, 40)
