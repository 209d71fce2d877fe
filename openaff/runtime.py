"""What must happen before mxnet is imported."""

import os
import pathlib


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

# Left alone, MXNet takes every second processor, hyper-threads or not: half of a machine without.
os.environ.setdefault("OMP_NUM_THREADS", str(physical_cores()))

try:
    import mxnet  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mxnet":
        raise
    raise ImportError(
        "openaff needs MXNet, which is not installed: pip install -e .[cpu] (or .[cu117] for "
        "NVIDIA GPUs)"
    ) from None
