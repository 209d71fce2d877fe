"""Hold back what MXNet prints in the normal course of things."""

import contextlib
import os
import sys
import warnings

# MXNet logs this whenever oneDNN's average pooling is prepared for training.  That an average needs
# no workspace, which "forward_scoring" says, is right, and the message has no switch.
POOLING = b"MKLDNN Pooling: training with prop_kind is forward_scoring"


@contextlib.contextmanager
def without_lines(text):
    """Leave out lines with ``text`` (bytes) of what C++, too, writes to the standard error stream.

    The other lines are written when the context ends.
    """
    if sys.stderr is None:  # it was closed when Python began
        yield
        return
    sys.stderr.flush()
    try:
        stream = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with os.fdopen(os.memfd_create("stderr"), "r+b") as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stream, 2)
            os.close(stream)
            held.seek(0)
            rest = b"".join(line for line in held if text not in line)
            while rest:
                rest = rest[os.write(2, rest) :]


@contextlib.contextmanager
def importing_symbol():
    """MXNet warns of inputs without a type, which the graph then settles."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cannot decide type")
        yield
