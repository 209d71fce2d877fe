"""What must happen before mxnet is imported, and why an import failed."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import re
import sys

from . import cuda
from .errors import UserError, last_line, positive_int
from .packaged import pip_install


class FrameworkError(ImportError):
    """mxnet cannot be imported.  The message says in one line why, and how to fix it."""


def usable_processors():
    """The processors that this process may use."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return list(range(os.cpu_count() or 1))


def physical_cores():
    """Physical cores that this process may use, at most its container's quota."""
    cores = set()
    for cpu in usable_processors():
        topology = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add((topology / "thread_siblings_list").read_text())
        except OSError:
            cores.add(cpu)
    try:
        quota, period = map(int, pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split())
    except (OSError, ValueError):  # no such file, or "max"
        return len(cores)
    return max(1, min(len(cores), quota // period))


def most_processes():
    """More processes than these are a mistake on this machine."""
    return max(64, 4 * len(usable_processors()))


def check_processes(name, value):
    """Refuse a number of processes, called ``name``, that is not from 1 to what is sensible here.

    Raises
    ------
    UserError
        It is another.
    """
    if positive_int(name, value) > most_processes():
        raise UserError(f"{name} {value}: at most {most_processes()} on this machine")
    return value


ASKED_THREADS = os.environ.get("OMP_NUM_THREADS")  # set by the user


def prepare():
    """Prepare for the import of mxnet; imports only the standard library."""
    if "mxnet" in sys.modules or unsupported():
        return
    # By default MXNet starts one thread per two processors. Without hyper-threading that halves
    # the speed.
    if not ASKED_THREADS:
        os.environ["OMP_NUM_THREADS"] = str(physical_cores())
    cuda.preload()


def import_mxnet():
    """Import mxnet, prepared by :func:`prepare`.

    Raises
    ------
    FrameworkError
        mxnet does not exist for this machine, is not installed, or cannot be imported.  If nobody
        catches the error, it is printed without a traceback.
    """
    try:
        reason = unsupported()
        if reason:
            raise FrameworkError(reason)
        import mxnet  # noqa: F401
    except Exception as error:
        sys.excepthook = functools.partial(_one_line, sys.excepthook)
        if isinstance(error, FrameworkError):
            raise
        raise FrameworkError(explain(error)) from error


def _one_line(hook, kind, error, traceback):
    if kind is FrameworkError:
        print(f"error: {error}", file=sys.stderr)
    else:
        hook(kind, error, traceback)


def unsupported():
    """Why there is no mxnet for this platform or Python, and what to do; None if there is."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return (
            f"openaff runs on Linux x86-64, not on {platform.system()} {platform.machine()}: "
            "use such a machine, or an exported ONNX file"
        )
    if sys.version_info >= (3, 12):
        return (
            "MXNet 1.9.1 needs numpy 1.23, which has no wheels for Python {}.{}: use Python 3.8 "
            "to 3.11, as in PYTHON=python3.11 make demo".format(*sys.version_info)
        )
    return None


def explain(error):
    """Explain in one line why ``import mxnet`` failed with ``error``, and what to do."""
    builds = cuda.mxnet_builds()
    if not builds and isinstance(error, ModuleNotFoundError) and error.name == "mxnet":
        return (
            f"MXNet is not installed: {pip_install('cpu')} (or [cu117] for NVIDIA GPUs; in a "
            "clone, make demo installs it into .venv)"
        )
    if len(builds) > 1:
        return two_builds(builds)
    build = next(iter(builds), "mxnet")
    extra = "cpu" if build == "mxnet" else "cu112" if build == "mxnet-cu112" else "cu117"
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
        # Another build was uninstalled, and with it the files that both had installed.
        return f"{build}'s files are gone: pip install --force-reinstall --no-deps {build}==1.9.1"
    if isinstance(error, ModuleNotFoundError):
        return f"{build} needs {error.name}, which is missing: {pip_install(extra)}"
    return f"{build} cannot be imported: {type(error).__name__}: {last_line(error)}"


def two_builds(builds):
    """What is wrong with several builds of mxnet in one environment, and what to do."""
    names = " ".join(builds)
    return (
        f"{' and '.join(builds)} overwrite each other's files: pip uninstall -y {names}, then "
        f"{pip_install('cpu')} or [cu117]"
    )


def _missing(library, build, extra):
    if library == cuda.DRIVER:
        return (
            f"{library} is missing; it is part of NVIDIA's driver: install the driver, or the CPU "
            f"build: pip uninstall -y {build}, then {pip_install('cpu')}"
        )
    if library in cuda.LIBRARIES:
        wheel = cuda.LIBRARIES[library]
        return f"{library} is missing; {wheel} has it: {pip_install(extra)}"
    packages = {"libgomp.so.1": "libgomp1", "libquadmath.so.0": "libquadmath0"}
    remedy = packages.get(library, f"the package that has {library}")
    return f"{library} is missing: on Debian, apt install {remedy}"


def installed_version(name):
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
