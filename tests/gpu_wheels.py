"""Whether every library that a GPU build of mxnet is linked to is there: make test-gpu-wheels.

In an environment with .[cu117] and pyelftools; no GPU is needed, and without NVIDIA's driver its
library alone must be missing, which the error of ``import openaff`` must say.
"""

import ctypes
import importlib.util
import pathlib
import subprocess
import sys

from elftools.elf.elffile import ELFFile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load_cuda():
    """openaff/utils/cuda.py alone: importing openaff would import mxnet."""
    spec = importlib.util.spec_from_file_location("cuda", ROOT / "openaff/utils/cuda.py")
    cuda = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cuda)
    return cuda


def loaded_from(library):
    """The path that this process has ``library`` from, None where it cannot be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return None
    lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
    files = {line.split()[-1] for line in lines if "/" in line}
    return next((each for each in sorted(files) if library in each), "the system's")


def main():
    cuda = load_cuda()
    cuda.preload()
    library = pathlib.Path(importlib.util.find_spec("mxnet").origin).with_name("libmxnet.so")
    with open(library, "rb") as content:
        dynamic = ELFFile(content).get_section_by_name(".dynamic")
        needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
    missing = []
    for name in needed:
        beside = library.with_name(name)  # its RPATH is its own folder
        path = loaded_from(str(beside) if beside.exists() else name)
        print(f"{name:<22} {path or 'MISSING'}")
        if path is None:
            missing.append(name)
    if set(missing) - {cuda.DRIVER}:
        sys.exit("missing: " + " ".join(missing))
    done = subprocess.run(
        [sys.executable, "-c", "import openaff"], capture_output=True, text=True, cwd=str(ROOT)
    )
    print(done.stderr.strip() or "openaff can be imported")
    if missing and not (done.returncode == 1 and done.stderr.count("\n") == 1):
        sys.exit("without the driver, importing openaff must fail with one line")
    if missing and cuda.DRIVER not in done.stderr:
        sys.exit(f"the error must name {cuda.DRIVER}")


main()
