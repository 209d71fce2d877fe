"""Which libraries are loaded for a GPU build, and from where."""

import re

import pytest

from openaff.utils import cuda


@pytest.fixture
def loads(monkeypatch, tmp_path):
    """Paths and names loaded; ``system``: names that the dynamic linker finds."""
    loaded, system = [], set()
    for wheel in ("cuda_runtime", "cudnn", "nccl"):
        (tmp_path / wheel / "lib").mkdir(parents=True)
    for path in ("cuda_runtime/lib/libcudart.so.11.0", "cudnn/lib/libcudnn.so.8"):
        (tmp_path / path).touch()

    def load(name):
        found = "/" in name or name in system
        if found:
            loaded.append(name.replace(str(tmp_path) + "/", ""))
        return found

    monkeypatch.setattr(cuda, "_loads", load)
    monkeypatch.setattr(cuda, "wheel_folders", lambda: sorted(tmp_path.glob("*/lib")))
    monkeypatch.setattr(cuda, "mxnet_builds", lambda: {"mxnet-cu117": "1.9.1"})
    return loaded, system


def test_without_a_system_cuda_all_comes_from_the_wheels(loads):
    loaded, system = loads
    system.add("libcudnn.so.8")  # of CUDA 12, say
    cuda.preload()
    assert loaded == ["cuda_runtime/lib/libcudart.so.11.0", "cudnn/lib/libcudnn.so.8"]


def test_a_system_cuda_comes_first_and_is_completed(loads):
    loaded, system = loads
    system.update({"libcudart.so.11.0", "libcublas.so.11"})
    cuda.preload()
    assert loaded[0] == "libcudart.so.11.0" and "libcublas.so.11" in loaded
    assert loaded[-1] == "cudnn/lib/libcudnn.so.8"
    assert not any("/libcudart" in name for name in loaded)


def test_the_cpu_build_loads_nothing(loads, monkeypatch):
    monkeypatch.setattr(cuda, "mxnet_builds", lambda: {"mxnet": "1.9.1"})
    cuda.preload()
    assert loads[0] == []


def test_a_library_that_is_no_library_is_left_for_mxnet_to_miss(tmp_path):
    (tmp_path / "libx.so").write_text("not a library")
    assert not cuda._loads(str(tmp_path / "libx.so"))


def test_each_library_has_its_wheel_in_the_extras(root):
    wheels = set(re.findall(r'"(nvidia-\S+)==', (root / "setup.py").read_text()))
    assert wheels == set(cuda.LIBRARIES.values())


def test_the_build_of_this_environment_is_found():
    assert set(cuda.mxnet_builds()) and set(cuda.mxnet_builds()) <= set(cuda.BUILDS)
