"""The processes that train one network together, through MXNet's parameter server."""

import os

import mxnet as mx
import numpy as np

from ..utils.errors import UserError

# Gluon's trainer numbers its parameters from 0 in the same store.
_FIRST_KEY = 1_000_000


class Workers:
    """This process alone or, with a distributed key-value store, one of several.

    Parameters
    ----------
    kind : str, optional
        ``dist_sync`` sums gradients on CPUs, ``dist_device_sync`` first on each worker's GPUs.

    Attributes
    ----------
    rank : int
        This process's number, from 0; the first one writes the files.
    count : int
        Processes.

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
                    "or each trains a network of its own"
                )
            return
        needed = ("ROLE", "PS_ROOT_URI", "PS_ROOT_PORT", "NUM_WORKER", "NUM_SERVER")
        missing = [f"DMLC_{name}" for name in needed if f"DMLC_{name}" not in os.environ]
        if missing:
            raise UserError(
                f"kvstore={kind} is for several workers, but {missing[0]} is not set: start them "
                "with scripts/launch_local.py, or see docs/distributed.md"
            )
        self.kvstore = mx.kv.create(kind)
        self.rank, self.count = self.kvstore.rank, self.kvstore.num_workers

    def sum(self, values):
        """The sums over all workers of a float array (N,); all must call this.

        In float32 where there are several, and then the call waits for all.
        """
        if self.kvstore is None:
            return values
        array = mx.nd.array(values)
        if array.size not in self._keys:
            self._keys[array.size] = _FIRST_KEY + len(self._keys)
            self.kvstore.init(self._keys[array.size], mx.nd.zeros_like(array))
        key = self._keys[array.size]
        self.kvstore.push(key, array)
        self.kvstore.pull(key, out=array)
        return array.asnumpy()

    def any(self, flag):
        """Whether the flag is true in any worker."""
        return bool(self.sum(np.array([float(bool(flag))]))[0])
