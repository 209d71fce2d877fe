"""Distributed training: processes that train one network through MXNet's parameter server."""

import os

import mxnet as mx
import numpy as np

from ..utils.errors import UserError

# Gluon's trainer uses the keys from 0 for its parameters, in the same store.
_FIRST_KEY = 1_000_000


class Workers:
    """The workers of a training: one process or, with a distributed key-value store, several.

    Parameters
    ----------
    kind : str, optional
        ``dist_sync`` sums gradients on CPUs; ``dist_device_sync`` first on each worker's GPUs.

    Attributes
    ----------
    rank : int
        The index of this process.  Only process 0 writes files.
    count : int
        The number of processes.

    Raises
    ------
    UserError
        The process was not started as a worker.
    """

    def __init__(self, kind=None):
        self.kvstore = None
        self.rank, self.count = 0, 1
        self._keys = {}
        if kind is None:
            if "DMLC_ROLE" in os.environ:
                raise UserError(
                    "this process was started as one of several workers: set kvstore=dist_sync, "
                    "otherwise each worker trains its own network"
                )
            return
        needed = ("ROLE", "PS_ROOT_URI", "PS_ROOT_PORT", "NUM_WORKER", "NUM_SERVER")
        missing = [f"DMLC_{name}" for name in needed if f"DMLC_{name}" not in os.environ]
        if missing:
            raise UserError(
                f"kvstore={kind} is for several workers, but {missing[0]} is not set: start them "
                "with openaff launch, or see docs/distributed.md"
            )
        port = os.environ["DMLC_PS_ROOT_PORT"]
        if not (port.isdecimal() and 0 < int(port) < 1 << 16):
            raise UserError(f"DMLC_PS_ROOT_PORT={port}: it must be a port, 1 to 65535")
        self.kvstore = mx.kv.create(kind)
        self.rank, self.count = self.kvstore.rank, self.kvstore.num_workers

    def sum(self, values):
        """Sum a float array (N,) over all workers, in float64: counts are exact.

        All workers must call this, and it waits for them.
        """
        if self.kvstore is None:
            return values
        # The store adds up float32; servers may even hold float64 as float32.  So each worker sends
        # its numbers as they are, 16 bits a number, in places that the others leave at 0.
        bits = np.ascontiguousarray(values, "float64").view("uint16")
        places = np.zeros((self.count, bits.size), "float32")
        places[self.rank] = bits
        array = mx.nd.array(places.ravel())
        if array.size not in self._keys:
            self._keys[array.size] = _FIRST_KEY + len(self._keys)
            self.kvstore.init(self._keys[array.size], mx.nd.zeros_like(array))
        key = self._keys[array.size]
        self.kvstore.push(key, array)
        self.kvstore.pull(key, out=array)
        return array.asnumpy().astype("uint16").reshape(places.shape).view("float64").sum(axis=0)

    def any(self, flag):
        """Whether ``flag`` is true in any worker; all workers must call this."""
        return bool(self.sum(np.array([float(bool(flag))]))[0])
