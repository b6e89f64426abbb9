"""Metadata of the vit-backbones distribution; the pinned environment is in requirements*.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = (ROOT / 'vit_backbones' / 'version.py').read_text(encoding='utf-8')

# The package imports mmengine, mmcv, mmdet and mmseg, and two families of distributions provide
# those names: OpenMMLab's and the maintained onedl-* forks. Installing both overwrites one with the
# other, so neither is a hard requirement and each is an extra. With a compiled mmcv, install the
# packages of the `openmmlab` extra by hand: mmcv-lite would overwrite it too.
# Bounds are the oldest and newest releases that passed: docs/versions.md, from .ci/matrix.
INSTALL_REQUIRES = [
    'torch>=2.8,<2.16',  # 2.7 exports no .pt2, 2.6 lacks torch.compiler.is_exporting
    'torchvision>=0.23,<0.30',  # the release that goes with torch 2.8
    'timm>=1.0.31,<1.1',  # older ones resample position embeddings wrongly; 1.1 was never tried
    'numpy>=2,<2.6',  # the allow-listed pickles of a resume name numpy._core, which NumPy 1 lacks
    'safetensors>=0.5,<0.9',  # older ones were never tried
    'rich>=13,<16',  # as above
]

EXTRAS_REQUIRE = {
    'openmmlab': [
        'mmengine>=0.10.7,<0.11',  # the checkpoint layout we allow-list was read from 0.10.7
        'mmcv-lite>=2.1.0,<2.2.0',  # mmdet 3.3.0 and mmsegmentation 1.2.2 refuse 2.2.0
        'mmdet>=3.3.0,<4',  # older releases refuse mmcv 2.1.0
        'mmsegmentation>=1.2.2,<2',  # as mmdet
        'ftfy',  # imported by mmseg, which does not declare it
        'regex',  # as ftfy
        'setuptools<82',  # mmengine imports pkg_resources, removed in 82
        'opencv-python-headless>=4.10.0.84,<6',  # cv2 without libGL; the first one for NumPy 2
    ],
    'onedl': [  # the releases that were tried; mmcv is built from source
        'onedl-mmengine>=0.10.12',
        'onedl-mmcv>=2.3.6',
        'onedl-mmdetection>=3.5.1',
        'onedl-mmsegmentation>=1.4.2',
    ],
    # 5.8 names the blocks otherwise; tried with 5.9.0, 5.17.0, 5.23.0 and 5.24.0
    'transformers': ['transformers>=5.9,<6'],
    'lightly': ['lightly>=1.6,<2'],  # tried with 1.6.0
    'peft': ['peft>=0.21,<1'],  # tried with 0.21.2
    'tools': [  # the oldest that were tried; tables of features, probes and clusters, exports
        'pyarrow>=26,<27',
        'scikit-learn>=1.9,<1.10',
        'onnx>=1.23,<1.24',
        'onnxruntime>=1.31,<1.33',
    ],
    **{name: [name] for name in ('tensorboard', 'wandb', 'mlflow')},  # `--NAME` of tools/train.py
    'tiff': ['tifffile', 'imagecodecs'],  # bands that OpenCV does not read; LZW and others
    'faiss': ['faiss-cpu>=1.15,<1.16'],  # tried with 1.15.1; `--search` in many embeddings
    'umap': ['umap-learn'],  # `--plot umap` of tools/extract_features.py
    'dev': [
        'pytest>=8',
        'pytest-timeout>=2.3.1',  # `timeout` in pyproject.toml
        'pytest-xdist>=3.6',  # `make test` in two processes
        'hypothesis>=6',
        'ruff>=0.17,<0.18',  # the formatter's style changes between minor releases
    ],
}

setup(
    name='vit-backbones',
    version=re.search(r"^__version__ = '([^']+)'$", VERSION, re.MULTILINE).group(1),
    description='Any Vision Transformer under any MMDetection or MMSegmentation head',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['vit_backbones', 'vit_backbones.*']),
    # `_base_ = 'vit_backbones::...'` is looked for in .mim/configs, and .mim/tools/NAME.py is what
    # `python -m vit_backbones NAME` runs: both are links, to ./configs and ./tools
    package_data={
        'vit_backbones': ['.mim/model-index.yml', '.mim/configs/**/*.py', '.mim/tools/*.py']
    },
    python_requires='>=3.11',  # the locked NumPy and SciPy, and mmengine was never tried below
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    zip_safe=False,
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
