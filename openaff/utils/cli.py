"""What all commands share: one-line errors and exit statuses."""

import contextlib
import errno
import os
import sys
import traceback

from .errors import UserError, last_line, os_reason, printable
from .interrupt import STATUS, Stopped

# Bad input; a disk that is full or cannot be written; a name that is not text.
_SHOWN_IN_ONE_LINE = (UserError, OSError, UnicodeEncodeError, MemoryError)

_BROKEN_PIPE = 141  # the status of a program that SIGPIPE ends


def run(main):
    """Call ``main()``; exit with 2 and one line on bad input, with 75 or 130 if asked to stop.

    The environment variable ``OPENAFF_TRACEBACK=1`` also shows the traceback of such a line.
    """
    _open_streams()
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # as in "... | head", which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(_BROKEN_PIPE)
    except Stopped as stopped:
        _exit(printable(str(stopped)), STATUS)
    except KeyboardInterrupt:
        _exit("interrupted", 130)
    except Exception as error:
        if isinstance(error, (*_SHOWN_IN_ONE_LINE, _mxnet_error())) or _of_memory(error):
            if os.environ.get("OPENAFF_TRACEBACK"):
                traceback.print_exc()
            _exit(f"error: {printable(_reason(error))}", 2)
        if "DMLC_ROLE" not in os.environ:
            raise
        _exit(traceback.format_exc(), 1)


def _open_streams():
    """Take the null device for a standard stream that is closed, as in ``openaff ... >&-``.

    Otherwise the next file that is opened would get its number, and what MXNet prints with it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the first free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r"))


def _mxnet_error():
    """MXNet's error, where mxnet is imported: commands that need none start without it."""
    return getattr(sys.modules.get("mxnet.base"), "MXNetError", UserError)


def _of_memory(error):
    """Whether it is PyTorch's error for a lack of memory, on a CPU or on a GPU."""
    words = ("out of memory", "allocate memory")
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)


def _reason(error):
    """Why bad input, a full disk or a lack of memory ended the program, in one line."""
    if isinstance(error, UnicodeEncodeError):
        letters = error.object[error.start : error.end]
        if any("\ud800" <= letter <= "\udfff" for letter in letters):  # a file's name
            return f"{ascii(error.object)} is not in UTF-8: rename the file or folder"
        return f"the output's encoding, {error.encoding}, has no {ascii(letters)}: set PYTHONUTF8=1"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        line = os_reason(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            line += ": free some space, then repeat the command; a training goes on with --resume"
        return line
    return last_line(error) if str(error).strip() else "out of memory"


def _exit(message, status):
    print(message, file=sys.stderr, flush=True)
    _leave(status)


def _leave(status):
    if "DMLC_ROLE" in os.environ and status != STATUS:
        # A worker that exits normally waits for the others, which wait for its gradients.
        with contextlib.suppress(OSError):  # such as a broken pipe
            sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
