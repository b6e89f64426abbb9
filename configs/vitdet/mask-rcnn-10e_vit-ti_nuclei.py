# Mask R-CNN on nuclei with the budget of the other small recipes: 10 epochs.
#   command: in README.md
_base_ = 'mask-rcnn_vit-ti_nuclei.py'
train_cfg = dict(max_epochs=10)
