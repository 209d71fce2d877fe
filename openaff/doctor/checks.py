"""Check Python, packages, devices and the machine."""

import importlib.metadata
import json
import os
import platform
import re

from ..utils import cuda
from ..utils import framework as runtime
from ..utils.packaged import pip_install
from .child import run_python
from .finding import ERROR, OK, WARNING, Finding
from .machine import memory_bytes, nvidia_gpus, shared_memory_bytes

SMOKE = "from openaff.doctor import smoke; smoke.main()"
GLUONCV = "from openaff.utils.imports import import_gluoncv; import_gluoncv()"
GIB = 1 << 30
USES = {  # extra -> what needs its packages
    "": "openaff",
    "onnx": "exporting",
    "demo": "the demo",
    "gluoncv": "a teacher of gluoncv's",
}


def check_system():
    """Python and platform."""
    version, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    reason = runtime.unsupported()
    return Finding("Python", ERROR if reason else OK, reason or f"{version}, {system}")


def check_requirements():
    """The builds of mxnet, and the versions of the packages that openaff requires."""
    builds = cuda.mxnet_builds()
    if len(builds) > 1:
        yield Finding("mxnet", WARNING, runtime.two_builds(builds))
    try:
        from packaging.requirements import Requirement

        requirements = [Requirement(line) for line in importlib.metadata.requires("openaff") or ()]
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", WARNING, f"openaff is not installed: {pip_install('cpu')}")
        return
    except ImportError:
        yield Finding("packages", WARNING, f"packaging is missing: {pip_install('cpu')}")
        return
    right, missing = [], {}
    for requirement in requirements:
        extra = next((extra for extra in USES if _asked(requirement, extra)), None)
        if extra is None:
            continue
        name, asked = requirement.name, str(requirement.specifier)
        installed = runtime.installed_version(name)
        if installed is None:
            missing.setdefault(extra, []).append(name)
        elif requirement.specifier.contains(installed, prereleases=True):
            right.append(f"{name} {installed}")
        else:
            yield Finding(
                name,
                WARNING,
                f"{installed} is installed, but {USES[extra]} needs {asked}: "
                f"pip install '{name}{asked}'",
            )
    for extra, names in missing.items():
        remedy = pip_install(extra or "cpu")
        text = f"{USES[extra]} needs {', '.join(names)}: {remedy}"
        yield Finding("packages", WARNING, text)
    if right:
        yield Finding("packages", OK, ", ".join(right))


def _asked(requirement, extra):
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def check_devices(devices, limit):
    """Import mxnet; run a block on the CPU, on each GPU and on the devices of ``--devices``."""
    cpu = run_python(SMOKE, "cpu", limit=limit, DNNL_VERBOSE="1")
    facts = {"cuda": False}
    if cpu.problem and cpu.problem.startswith("ModuleNotFoundError"):
        yield Finding("packages", ERROR, f"{cpu.problem}: {pip_install('cpu')}")
    elif cpu.problem:
        yield Finding("mxnet", ERROR, cpu.problem)
    else:
        facts = json.loads(cpu.output.strip().splitlines()[-1])
        builds = " and ".join(cuda.mxnet_builds()) or "mxnet"
        kind = "CUDA and the CPU" if facts["cuda"] else "the CPU only"
        right = facts["version"] == "1.9.1"
        advice = "" if right else "; openaff needs 1.9.1: pip install mxnet==1.9.1"
        text = f"{builds} {facts['version']}, for {kind}{advice}"
        yield Finding("mxnet", OK if right else WARNING, text)
        isa = re.search(r"cpu,isa:(.*)", cpu.output)
        by = f" by oneDNN for {isa.group(1)}" if isa else ""
        yield Finding("cpu", OK, f"runs an AFF block{by}")
        if runtime.installed_version("gluoncv"):
            yield from _check_gluoncv(limit)
    gpus, reason = nvidia_gpus()
    if reason:
        yield Finding("GPUs", WARNING, reason)
    elif not gpus:
        yield Finding(
            "GPUs", OK, "none: nvidia-smi, which comes with NVIDIA's driver, is not installed"
        )
    for gpu in gpus:
        yield _check_gpu(gpu, facts["cuda"], limit)
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        visible = os.environ["CUDA_VISIBLE_DEVICES"]
        text = f"CUDA_VISIBLE_DEVICES={visible}: gpu:0 is the first of these"
        yield Finding("GPUs", OK, text)
    if devices != "cpu" and not cpu.problem:
        problem = run_python(SMOKE, devices, limit=limit).problem
        status = ERROR if problem else OK
        yield Finding("--devices", status, problem or f"{devices}: each runs an AFF block")


def _check_gluoncv(limit):
    """gluoncv: its OpenCV needs libraries that servers often lack."""
    problem = run_python(GLUONCV, limit=limit).problem
    if problem:
        yield Finding("gluoncv", WARNING, f"its networks cannot be teachers: {problem}")
        return
    problem = run_python("import cv2", limit=limit).problem
    if problem:
        yield Finding(
            "gluoncv",
            WARNING,
            f"its OpenCV cannot be imported ({problem}); openaff works without it; on Debian: "
            "apt install libgl1 libglib2.0-0",
        )


def _check_gpu(gpu, cuda_build, limit):
    subject = f"GPU {gpu.index}"
    facts = f"{gpu.name}, compute capability {gpu.capability or 'unknown'}, driver {gpu.driver}"
    if gpu.capability and gpu.code is None:
        return Finding(
            subject,
            WARNING,
            f"{facts}: mxnet's wheels have code for 5.0 to 8.9 only: train on another card or on "
            "the CPU, and run the exported ONNX file here",
        )
    if not cuda_build:
        return Finding(
            subject,
            WARNING,
            f"{facts}: this mxnet is for the CPU only: pip uninstall -y mxnet, then "
            + pip_install("cu117"),
        )
    alone = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(gpu.index)}
    problem = run_python(SMOKE, "gpu:0", limit=limit, **alone).problem
    if problem:
        return Finding(subject, WARNING, f"{facts}: {problem}")
    by = f", by code for {gpu.code}" if gpu.code else ""
    return Finding(subject, OK, f"{facts}: runs an AFF block{by}")


def check_machine():
    """Cores, memory and /dev/shm."""
    cores, processors = runtime.physical_cores(), len(runtime.usable_processors())
    threads = runtime.ASKED_THREADS or cores
    yield Finding("cores", OK, f"{cores}, {processors} processors; MXNet threads: {threads}")
    yield Finding("memory", OK, f"{memory_bytes() / GIB:.1f} GiB")
    shared = shared_memory_bytes()
    # Only NCCL needs it, between several GPUs.
    little = shared is None or shared < GIB
    yield Finding(
        "/dev/shm",
        OK,
        ("none" if shared is None else f"{shared / GIB:.2f} GiB")
        + ("; enlarge it for several GPUs (docker run --shm-size=1g)" if little else ""),
    )
