"""The CUDA 11 libraries that mxnet's GPU builds are linked to, from NVIDIA's wheels.

The dynamic linker does not search the wheels' folders.  But it finds a library that the process has
already loaded, by its name alone.  So :func:`preload` loads them all before mxnet is imported.
"""

import ctypes
import importlib.metadata
import importlib.util
import pathlib

# Library -> the wheel that has it; each needs only those above it.
LIBRARIES = {
    "libcudart.so.11.0": "nvidia-cuda-runtime-cu11",
    "libnvToolsExt.so.1": "nvidia-nvtx-cu11",
    "libnvrtc.so.11.2": "nvidia-cuda-nvrtc-cu11",
    "libcublasLt.so.11": "nvidia-cublas-cu11",
    "libcublas.so.11": "nvidia-cublas-cu11",
    "libcufft.so.10": "nvidia-cufft-cu11",
    "libcurand.so.10": "nvidia-curand-cu11",
    "libcusparse.so.11": "nvidia-cusparse-cu11",
    "libcusolver.so.11": "nvidia-cusolver-cu11",
    "libcudnn.so.8": "nvidia-cudnn-cu11",
    "libnccl.so.2": "nvidia-nccl-cu11",
}
CUDAS = (92, 100, 101, 102, *range(110, 118))
BUILDS = ("mxnet",) + tuple(f"mxnet-cu{cuda}" for cuda in CUDAS)
DRIVER = "libcuda.so.1"  # comes with NVIDIA's driver, never with a wheel


def mxnet_builds():
    """The installed builds of mxnet, name -> version; they all install the same module."""
    found = {}
    for name in BUILDS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def preload():
    """Load what a GPU build of mxnet needs; for other builds, do nothing.

    If the dynamic linker finds a CUDA 11 (``LD_LIBRARY_PATH``, ``ldconfig``), that comes first, and
    the wheels complete it.  Otherwise nothing of the system is used, because its cuDNN may belong
    to another CUDA.  If a library cannot be loaded, mxnet reports it later.
    """
    if not any(name.startswith("mxnet-cu11") for name in mxnet_builds()):
        return
    system = _loads("libcudart.so.11.0")
    folders = wheel_folders()
    for library in LIBRARIES:
        if not (system and _loads(library)):
            for path in (folder / library for folder in folders):
                if path.exists() and _loads(str(path)):
                    break


def wheel_folders():
    """Where NVIDIA's wheels keep their libraries."""
    spec = importlib.util.find_spec("nvidia")
    roots = spec.submodule_search_locations if spec else []
    return sorted(folder for root in roots for folder in pathlib.Path(root).glob("*/lib"))


def _loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
