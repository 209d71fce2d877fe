"""Write arrays in MXNet's file format, with every error of the disk reported.

``mx.nd.save`` does not report when its file cannot be closed: on a full disk the last page may be
missing without a word.  So we write the format, ``NDArray::Save`` of MXNet's ``ndarray.cc``, in
Python.  The files are the same, byte for byte.
"""

import struct

import numpy as np
from mxnet import cpu
from mxnet.ndarray.ndarray import _DTYPE_NP_TO_MX

from .files import atomic

_LIST, _DENSE_ARRAY, _DENSE = 0x112, 0xF993FAC9, 0
_CPU, _DEVICE = 1, 0


def write_arrays(out, arrays):
    """Write arrays with their names to a binary stream.

    Parameters
    ----------
    out : binary file
        Open for writing.
    arrays : dict of str to NDArray
        On any device; ``mx.nd.load`` puts them on the CPU.
    """
    out.write(struct.pack("<QQQ", _LIST, 0, len(arrays)))
    for array in arrays.values():
        values = np.ascontiguousarray(array.asnumpy())
        kind = _DTYPE_NP_TO_MX[values.dtype.type]
        out.write(struct.pack("<Iii", _DENSE_ARRAY, _DENSE, values.ndim))
        out.write(struct.pack(f"<{values.ndim}q", *values.shape))
        out.write(struct.pack("<iii", _CPU, _DEVICE, kind))
        out.write(values.data)
    out.write(struct.pack("<Q", len(arrays)))
    for name in arrays:
        name = name.encode("utf-8")
        out.write(struct.pack("<Q", len(name)) + name)


def save_arrays(path, arrays):
    """What ``mx.nd.save`` does with a dict, whole or not at all.

    Raises
    ------
    OSError
        The disk is full or cannot be written; a file that was there is untouched.
    """
    with atomic(path) as temporary:
        with open(temporary, "wb") as out:
            write_arrays(out, arrays)


def parameters(net):
    """Structural name -> NDArray on the CPU: what ``net.save_parameters`` writes.

    Of values that differ between devices, such as running statistics, it is the mean.  Of equal
    ones it is none: three times x, divided by three, may be another number.
    """
    return {name: _one(param) for name, param in net._collect_params_with_prefix().items()}


def _one(param):
    first, *others = param.list_data()
    values = first.asnumpy() if others else None
    if all(np.array_equal(values, other.asnumpy()) for other in others):
        return first.copyto(cpu())
    return param._reduce()
