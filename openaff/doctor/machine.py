"""What a machine has: memory and NVIDIA GPUs.  Imports only the standard library."""

import os
import pathlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Optional

# mxnet 1.9.1's wheels for CUDA 11 have code for these, and no PTX for later ones.
CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))


@dataclass(frozen=True)
class GPU:
    index: int  # nvidia-smi's
    name: str
    capability: Optional[str]  # such as "8.6"; None: unknown
    driver: str

    @property
    def code(self):
        """The capability whose code it runs, such as "8.6"; None: there is none, or unknown.

        Code runs on GPUs of the same major version with the same or a higher minor version.
        """
        if self.capability is None:
            return None
        major, minor = map(int, self.capability.split("."))
        usable = [code for code in CODE if code[0] == major and code[1] <= minor]
        return "{}.{}".format(*usable[-1]) if usable else None


def nvidia_gpus():
    """The GPUs that the driver lists.

    Returns
    -------
    list of GPU, and str or None
        The GPUs, and the reason if there are none; without a driver ``([], None)``.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], None
    for field in ("compute_cap,", ""):  # older drivers do not know compute_cap
        query = [program, f"--query-gpu=index,name,{field}driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, errors="replace", timeout=20)
        except subprocess.TimeoutExpired:
            return [], "nvidia-smi did not answer within 20 seconds"
        except OSError as error:
            return [], f"nvidia-smi cannot be run: {error.strerror}"
        pattern = r"(\d+), (.*), (.*), (\S+)" if field else r"(\d+), (.*)(), (\S+)"
        found = [re.fullmatch(pattern, line.strip()) for line in done.stdout.splitlines()]
        if any(found):
            return [_gpu(*match.groups()) for match in found if match], None
    lines = (done.stdout + done.stderr).strip().splitlines() or [f"status {done.returncode}"]
    return [], f"nvidia-smi lists none: {lines[0]}"


def _gpu(index, name, capability, driver):
    known = re.fullmatch(r"\d+\.\d+", capability)
    return GPU(int(index), name, capability if known else None, driver)


def memory_bytes():
    """Memory that this process may use: the machine's or, if less, its container's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(pathlib.Path(path).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            pass
    return total


def shared_memory_bytes():
    """Size of /dev/shm, or None if there is none."""
    try:
        return shutil.disk_usage("/dev/shm").total
    except OSError:
        return None
