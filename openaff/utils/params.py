"""Parameter files: their structure is checked here before MXNet's C++ reader sees them.

That reader trusts sizes: a negative number of dimensions ends the process.  The format, from
``NDArray::Save`` and ``NDArray::Load`` of MXNet's ``ndarray.cc``, little-endian throughout::

    uint64 0x112, uint64 0
    uint64 number of arrays, then each array:
        uint32 magic, int32 storage type (0: dense), int32 dimensions, int64 sizes ...
        int32 device type, int32 device number, int32 type of the values, values
    uint64 number of names, then each name: uint64 bytes, UTF-8

Arrays of releases before 0.12 have no storage type; those of the first ones have no magic either,
and uint32 sizes.
"""

import os
import struct

import mxnet as mx

from .digests import Damaged, check_digest
from .errors import UserError, last_line
from .files import refuse_special
from .quiet import importing_symbol

_LIST = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DENSE = 0
_BYTES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 8: 2, 9: 2, 10: 4, 11: 8, 12: 2}
_MOST_DIMENSIONS = 32


def read_arrays(path):
    """Name -> NDArray of a params file, or a list where its arrays have no names.

    Raises
    ------
    Damaged
        Its structure or, where the run or export that it belongs to says one, its checksum.
    OSError
        It cannot be opened.
    """
    check_structure(path)
    check_digest(path)
    try:
        return mx.nd.load(str(path))
    except (mx.base.MXNetError, AssertionError, ValueError) as error:
        raise Damaged(f"MXNet cannot read it: {last_line(error)}") from None


def import_symbol(symbol, params):
    """The ``SymbolBlock`` of an exported network, which takes ``data``.

    Raises
    ------
    UserError
        A file is missing or damaged, or they do not match.
    """
    try:
        check_structure(params)
        with importing_symbol():
            net = mx.gluon.SymbolBlock.imports(str(symbol), ["data"], str(params))
        missing = [key for key, param in net.collect_params().items() if param._data is None]
        if missing:
            raise Damaged(f"it has no {missing[0]}")
    except OSError as error:
        raise UserError(f"cannot read {params}: {error.strerror}") from None
    except Damaged as error:
        raise UserError(f"{params} is damaged: {error}") from None
    except Exception as error:  # MXNet raises many kinds for a graph that it cannot use
        raise UserError(
            f"{symbol} and {params} are no exported network: {last_line(error)}"
        ) from None
    return net


def check_structure(path):
    """Walk through a params file without reading its values.

    Raises
    ------
    Damaged
        A size that the file cannot have, an unknown type, or anything that should not be there.
    OSError
        It cannot be opened.
    """
    refuse_special(path)
    with open(path, "rb") as source:
        _Walk(source, os.fstat(source.fileno()).st_size).file()


class _Walk:
    def __init__(self, source, length):
        self.source, self.length = source, length

    def take(self, form):
        """The next numbers, in the form that :mod:`struct` names."""
        content = self.source.read(struct.calcsize("<" + form))
        if len(content) < struct.calcsize("<" + form):
            raise Damaged("it ends in the middle")
        return struct.unpack("<" + form, content)

    def skip(self, count):
        if count > self.length - self.source.tell():
            raise Damaged("it ends in the middle")
        self.source.seek(count, os.SEEK_CUR)

    def file(self):
        if self.length < 24 or self.take("QQ") != (_LIST, 0):
            raise Damaged("it is not an MXNet params file")
        (arrays,) = self.take("Q")
        for _ in range(self.count(arrays, 12)):
            self.array()
        (names,) = self.take("Q")
        if names not in (0, arrays):
            raise Damaged(f"it has {arrays} arrays and {names} names")
        known = set()
        for _ in range(self.count(names, 8)):
            known.add(self.name())
        if len(known) < names:
            raise Damaged("a name stands twice")
        if self.source.tell() != self.length:
            raise Damaged(f"{self.length - self.source.tell():,} bytes are left over at its end")

    def count(self, number, least):
        """A number of things, each of at least so many bytes."""
        if number * least > self.length:
            raise Damaged(f"it cannot hold {number:,} arrays")
        return number

    def name(self):
        (size,) = self.take("Q")
        if size > self.length - self.source.tell():
            raise Damaged("it ends in the middle")
        try:
            return self.source.read(size).decode("utf-8")
        except UnicodeDecodeError:
            raise Damaged("a name is not in UTF-8") from None

    def array(self):
        (magic,) = self.take("I")
        if magic in (_V2, _V3):
            (storage,) = self.take("i")
            if storage != _DENSE:
                raise Damaged(f"an array has the storage type {storage}: only dense ones are read")
        if magic in (_V1, _V2, _V3):
            (dimensions,), size = self.take("i"), "q"
        else:
            dimensions, size = magic, "I"
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise Damaged(f"an array has {dimensions} dimensions")
        values = 1
        for each in self.take(f"{dimensions}{size}"):
            values *= each
            if each < 1 or values > self.length:
                raise Damaged(f"an array has a side of {each}, and the file {self.length:,} bytes")
        device, number, kind = self.take("iii")
        if kind not in _BYTES or not 1 <= device <= 6 or number < 0:
            raise Damaged(f"an array has the device {device}, {number} and the type {kind}")
        self.skip(values * _BYTES[kind])
