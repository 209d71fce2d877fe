"""The libraries of CUDA 11 that mxnet's GPU builds are linked to, from NVIDIA's wheels.

The wheels put them where the dynamic linker does not look.  A library that a process has loaded is
found by its name whatever its folder, so :func:`preload` loads them before mxnet is imported.
"""

import ctypes
import importlib.metadata
import importlib.util
import pathlib

# In an order in which each finds those before it: library -> the wheel that has it.
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
    """The installed builds of mxnet, name -> version; all of them install one module."""
    found = {}
    for name in BUILDS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def preload():
    """Load what a GPU build of mxnet needs; does nothing for another build.

    A CUDA 11 that the dynamic linker finds (``LD_LIBRARY_PATH``, ``ldconfig``) comes first and is
    completed from the wheels; without one nothing of the system is taken, as its cuDNN may be of
    another CUDA.  What cannot be loaded is left for mxnet to miss.
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
