"""What a machine has: cores, memory, NVIDIA GPUs.  Imports nothing but the standard library."""

import os
import pathlib
import shutil
import subprocess
from dataclasses import dataclass

# What the wheels of mxnet 1.9.1 for CUDA 11 hold code for, without PTX for what came later.
CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))


@dataclass(frozen=True)
class GPU:
    index: int  # as nvidia-smi counts
    name: str
    capability: str  # such as "8.6"
    driver: str

    @property
    def code(self):
        """The compute capability whose code it runs, such as "8.6"; None: there is none for it.

        Code runs on its own generation, from its own capability upwards.
        """
        try:
            major, minor = map(int, self.capability.split("."))
        except ValueError:
            return None
        usable = [code for code in CODE if code[0] == major and code[1] <= minor]
        return "{}.{}".format(*usable[-1]) if usable else None


def nvidia_gpus():
    """The GPUs that the driver names.

    Returns
    -------
    list of GPU, and str or None
        The GPUs, and why there are none.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], "there is no nvidia-smi, which comes with NVIDIA's driver"
    query = ["--query-gpu=index,name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run([program, *query], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return [], "nvidia-smi did not answer within 20 seconds"
    except OSError as error:
        return [], f"nvidia-smi cannot be run: {error.strerror}"
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    if done.returncode:
        return [], f"nvidia-smi says: {lines[-1] if lines else f'status {done.returncode}'}"
    fields = [[field.strip() for field in line.split(",")] for line in lines]
    gpus = [GPU(int(each[0]), *each[1:]) for each in fields if len(each) == 4]
    return gpus, None if gpus else "nvidia-smi names none"


def memory_bytes():
    """Memory that this process may use: the machine's, or its container's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(pathlib.Path(path).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            pass
    return total


def shared_memory_bytes():
    """Size of /dev/shm, None without one."""
    try:
        return shutil.disk_usage("/dev/shm").total
    except OSError:
        return None
