# Mask2Former on nuclei with the budget of the other small recipes on nuclei: 6 epochs, and as many
# points as a mask of a crop has cells.
#   command: in README.md
_base_ = 'mask2former_vit-ti_nuclei.py'
model = dict(train_cfg=dict(num_points=64 * 64))
train_cfg = dict(max_epochs=6, val_interval=3)
