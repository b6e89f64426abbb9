"""A loading transform of a user's own: bands in a NumPy file."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadBandsForTest(BaseTransform):
    """Reads a `.npy` file of any bands."""

    def transform(self, results):
        results['img'] = np.load(results['img_path'])
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results
