"""Packaging: ``pip install -e .[cpu]`` or, with an NVIDIA GPU, ``.[cu117]`` or ``.[cu112]``."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "openaff/__init__.py").read_text()).group(1)

# What the GPU builds are linked to, but for the driver's libcuda.so.1; openaff/utils/cuda.py loads
# them.  All of CUDA 11.7, with the cuDNN (8: 9 is another library) and NCCL of its time.
CUDA_LIBRARIES = [
    "nvidia-cublas-cu11==11.10.3.66",
    "nvidia-cuda-nvrtc-cu11==11.7.99",
    "nvidia-cuda-runtime-cu11==11.7.99",
    "nvidia-cudnn-cu11==8.5.0.96",
    "nvidia-cufft-cu11==10.7.2.91",
    "nvidia-curand-cu11==10.2.10.91",
    "nvidia-cusolver-cu11==11.4.0.1",
    "nvidia-cusparse-cu11==11.7.4.91",
    "nvidia-nccl-cu11==2.14.3",
    "nvidia-nvtx-cu11==11.7.91",
]

setup(
    name="openaff",
    version=VERSION,
    description="Attentional feature fusion (AFF, iAFF, MS-CAM; WACV 2021) in MXNet/Gluon",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["openaff", "openaff.*"]),
    package_data={"openaff": ["configs/*/*.yaml", "configs/*/*/*.yaml", "models/weights/*"]},
    entry_points={"console_scripts": ["openaff = openaff.commands:main"]},
    # Below: what numpy 1.23 has wheels for; its 3.11 is the last.
    python_requires=">=3.8,<3.12",
    install_requires=[
        # mxnet 1.9.1 uses names such as numpy.bool that numpy 1.24 removed.
        "numpy<1.24",
        "matplotlib",
        "omegaconf>=2.1",
        "pillow",
        "pyyaml",
        "scipy",
        "tensorboardX",
        "tqdm",
    ],
    extras_require={
        # One of these three: all install the module mxnet. 1.9.1 is the last release.
        "cpu": ["mxnet==1.9.1"],
        "cu112": ["mxnet-cu112==1.9.1"] + CUDA_LIBRARIES,
        "cu117": ["mxnet-cu117==1.9.1"] + CUDA_LIBRARIES,
        # mxnet.onnx imports onnx.mapping, which onnx 1.17 removed; 1.16.2 and 1.19.2 are the
        # versions that its exports were checked with.
        "onnx": ["onnx>=1.15,<1.17", "onnxruntime<1.20"],
        # The fastest engine of ONNX files. The last year with wheels for Python 3.8 (which gets
        # 2024.4) up to 3.11; it asks for numpy>=1.16.6 alone, so that mxnet's numpy stays.
        "openvino": ["openvino>=2024.4,<2025"],
        # Exports to PyTorch and what comes back.  2.4 is the last that has wheels for Python 3.8
        # (3.9: 2.8), and knows all that network.py and its tests use.
        "torch": ["torch>=2.4", "safetensors>=0.4"],
        # Teachers of gluoncv's in distillation, its networks with our fusions, its detectors on our
        # maps. The last release; works beside mxnet 1.9.1 without PyTorch, and
        # openaff.utils.imports hides PyTorch 2 from it.
        "gluoncv": ["gluoncv==0.10.5.post0"],
        # Masks of COCO's annotations, for openaff prepare-coco.
        "coco": ["pycocotools>=2.0.6"],
        # The embedded digits.
        "demo": ["scikit-learn"],
        # The site of make docs; Material is in version 9 since 2022, and 10 may change its options.
        "docs": ["mkdocs-material>=9.5,<10", "mkdocstrings-python>=1.10"],
        # From 70.1 on setuptools makes wheels without help: a test installs one.
        "dev": ["pytest", "pytest-xdist", "ruff", "setuptools>=70.1"],
    },
)
