"""From ``cpu``, ``cpu:2`` or ``gpu:0,1`` to MXNet contexts that work."""

import re

import mxnet as mx

from .errors import UserError, last_line
from .packaged import pip_install

MOST_CPU_DEVICES = 64


def parse_devices(text):
    """The list of contexts that ``text`` names.

    Parameters
    ----------
    text : str
        ``cpu`` (one device), ``cpu:N`` (N devices on the CPU, to try multi-device training), or
        ``gpu:0,1`` (GPUs by index).

    Raises
    ------
    UserError
        The text has another form, or a GPU is absent or unusable.  There is no silent CPU run.
    """
    match = re.fullmatch(r"cpu(?::(\d+))?", text)
    if match:
        count = int(match.group(1) or 1)
        if count < 1:
            raise UserError(f"--devices {text}: at least one device is needed")
        if count > MOST_CPU_DEVICES:
            raise UserError(f"--devices {text}: at most {MOST_CPU_DEVICES} make sense on a CPU")
        return [mx.cpu(index) for index in range(count)]
    match = re.fullmatch(r"gpu:(\d+(?:,\d+)*)", text)
    if not match:
        raise UserError(
            f"--devices {text!r}: write cpu, cpu:N for N devices on the CPU, or gpu:0,1"
        )
    indices = [int(index) for index in match.group(1).split(",")]
    if len(set(indices)) != len(indices):
        raise UserError(f"--devices {text}: a GPU is named twice")
    return [_usable_gpu(index) for index in indices]


def _usable_gpu(index):
    if not mx.runtime.Features().is_enabled("CUDA"):
        raise UserError(
            f"gpu:{index} cannot be used, because this mxnet is for the CPU only: pip uninstall "
            f"mxnet, then {pip_install('cu117')}; or use --devices cpu"
        )
    try:
        count = mx.context.num_gpus()
    except mx.base.MXNetError:
        count = 0
    if index >= count:
        raise UserError(
            "gpu:{} cannot be used, because mxnet finds {} GPU{}: see nvidia-smi, or use --devices "
            "cpu".format(index, count or "no", "" if count == 1 else "s")
        )
    context = mx.gpu(index)
    try:
        (mx.nd.ones((1,), ctx=context) + 1).asnumpy()
    except mx.base.MXNetError as error:
        raise UserError(
            f"gpu:{index} cannot run mxnet's kernels (its wheels have code for compute capability "
            f"5.0 to 8.9): {last_line(error)}"
        ) from None
    return context
