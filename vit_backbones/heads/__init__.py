"""Additions to the heads and models of mmdet and mmseg, a file for each idea.

`vit_backbones.mmdet` and `vit_backbones.mmseg` register them: the files whose names end in a model
or head of theirs. The other files are parts of these:

- `auxiliary`: the loss on the backbone's own map.
- `batched_loss`: Mask2Former's loss, with `class_masks` for its ground truth, `matching`, and
  `unbatched` for where it is mmdet's.
- `joint_head`: queries in a ViT's blocks, EoMT's and others', with `query_prediction`,
  `mask_annealing`, `iteration`, and `det_joint_head` and `seg_joint_head` for the toolboxes;
  `joint_features` for those that go through the backbone.
- `window_inference`: semantic inference by evenly spread windows.
- `without_waits`: Mask2Former's forward pass, with `pixel_decoder`, `grid_encoding` and
  `masked_attention`.
"""
