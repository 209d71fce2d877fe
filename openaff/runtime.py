"""What must happen before mxnet is imported, and why it could not be."""

import importlib.metadata
import os
import pathlib
import platform
import re
import sys

from . import cuda


class FrameworkError(ImportError):
    """mxnet cannot be imported: the message says in one line why, and what to do."""


def physical_cores():
    """Cores that this process may use, hyper-threads counted once."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        topology = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add((topology / "thread_siblings_list").read_text())
        except OSError:
            cores.add(cpu)
    return len(cores)


ASKED_THREADS = os.environ.get("OMP_NUM_THREADS")  # by the user


def import_mxnet():
    """Import mxnet, prepared.

    Raises
    ------
    FrameworkError
        It is not installed, or cannot be imported.  Uncaught, it is printed without a traceback.
    """
    # Left alone, MXNet takes every second processor, hyper-threads or not: half of a machine
    # without.
    os.environ.setdefault("OMP_NUM_THREADS", str(physical_cores()))
    if "mxnet" not in sys.modules:
        cuda.preload()
    try:
        import mxnet  # noqa: F401
    except Exception as error:
        sys.excepthook = _one_line
        raise FrameworkError(explain(error)) from error


def doctor_asked():
    """Whether this is ``python -m openaff.doctor``, which works where mxnet does not."""
    try:
        words = pathlib.Path("/proc/self/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    # While Python looks for the module of -m, the packages above it are imported and argv is this.
    return sys.argv[:1] == ["-m"] and b"openaff.doctor" in words


def _one_line(kind, error, traceback):
    if kind is FrameworkError:
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def unsupported():
    """Why there is no mxnet for this platform or Python, and what to do; or None."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return (
            f"MXNet 1.9.1 runs on Linux x86-64, not on {platform.system()} {platform.machine()}: "
            "use such a machine, or an exported ONNX file"
        )
    if not (3, 8) <= sys.version_info[:2] <= (3, 11):
        return (
            "MXNet 1.9.1 needs numpy 1.23, which has no wheels for Python {}.{}: take Python 3.8 "
            "to 3.11, as in PYTHON=python3.11 make demo".format(*sys.version_info)
        )
    return None


def explain(error):
    """Why ``import mxnet`` failed with ``error``, and what to do, in one line."""
    reason = unsupported()
    if reason:
        return reason
    builds = cuda.mxnet_builds()
    if not builds:
        return (
            "MXNet is not installed: pip install -e .[cpu] (or .[cu117] for NVIDIA GPUs; in a "
            "clone, make demo installs it into .venv)"
        )
    if len(builds) > 1:
        return two_builds(builds)
    (build,) = builds
    extra = build[len("mxnet-") :] or "cpu"
    library = re.search(r"(lib\S+\.so[\w.]*): cannot open", str(error))
    if library:
        return f"{build} cannot be imported: {_missing(library.group(1), build, extra)}"
    numpy = installed_version("numpy")
    if numpy and tuple(map(int, numpy.split(".")[:2])) >= (1, 24):
        return (
            f"mxnet 1.9.1 uses names that numpy 1.24 removed, and numpy is {numpy}: "
            "pip install 'numpy<1.24'"
        )
    if isinstance(error, ModuleNotFoundError) and error.name == "mxnet":
        # Another build was uninstalled, and took the files that both had put there.
        return f"{build}'s files are gone: pip install --force-reinstall --no-deps {build}==1.9.1"
    if isinstance(error, ModuleNotFoundError):
        return f"{build} needs {error.name}, which is missing: pip install -e .[{extra}]"
    lines = str(error).strip().splitlines() or [""]
    return f"{build} cannot be imported: {type(error).__name__}: {lines[-1]}"


def two_builds(builds):
    """What several builds of mxnet in one environment come to, and what to do."""
    names = " ".join(builds)
    return (
        f"{' and '.join(builds)} overwrite each other's files: pip uninstall -y {names}, then "
        "pip install -e .[cpu] or .[cu117]"
    )


def _missing(library, build, extra):
    if library == cuda.DRIVER:
        return (
            f"{library} is not on this machine; it is a part of NVIDIA's driver: install that, or "
            f"take the CPU build: pip uninstall -y {build}, then pip install -e .[cpu]"
        )
    if library in cuda.LIBRARIES:
        wheel = cuda.LIBRARIES[library]
        return f"{library} is missing; {wheel} has it: pip install -e .[{extra}]"
    packages = {"libgomp.so.1": "libgomp1", "libquadmath.so.0": "libquadmath0"}
    remedy = packages.get(library, f"the package that has {library}")
    return f"{library} is missing: on Debian, apt install {remedy}"


def installed_version(name):
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
