"""Additions to the heads and models of mmdet and mmseg, a file for each idea.

`vit_backbones.mmdet` and `vit_backbones.mmseg` register them: the files whose names end in a model
or head of theirs. The other files are parts of these:

- `auxiliary`: the loss on the backbone's own map.
- `batched_loss`: Mask2Former's loss, with `class_masks` for its ground truth, `matching`, and
  `unbatched` for where it is mmdet's.
- `without_waits`: Mask2Former's forward pass, with `pixel_decoder`, `grid_encoding` and
  `masked_attention`.
"""
