"""What all scripts share: one-line errors and exit statuses."""

import errno
import os
import sys
import traceback

import yaml

from .configs import parse_yaml
from .errors import UserError, one_line, printable
from .framework import import_mxnet
from .interrupt import STATUS, Stopped

import_mxnet()

import mxnet as mx  # noqa: E402

# Bad input; a disk that is full or cannot be written; a name that is not text; MXNet's errors.
_SHOWN_IN_ONE_LINE = (UserError, OSError, UnicodeEncodeError, mx.base.MXNetError, MemoryError)


def run(main):
    """Call ``main()``; exit with 2 and one line on bad input, with 75 or 130 if asked to stop.

    The environment variable ``OPENAFF_TRACEBACK=1`` also shows the traceback of such a line.
    """
    try:
        main()
    except _SHOWN_IN_ONE_LINE as error:
        if os.environ.get("OPENAFF_TRACEBACK"):
            traceback.print_exc()
        _exit(f"error: {printable(_reason(error))}", 2)
    except Stopped as stopped:
        _exit(printable(str(stopped)), STATUS)
    except KeyboardInterrupt:
        _exit("interrupted", 130)
    except Exception:
        if "DMLC_ROLE" not in os.environ:
            raise
        _exit(traceback.format_exc(), 1)


def _reason(error):
    """Why bad input, a full disk or a lack of memory ended the program, in one line."""
    if isinstance(error, UnicodeEncodeError):  # such as a file's name that no output can show
        return f"{ascii(error.object)} is not in UTF-8: rename the file or folder"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        line = f"{error.strerror or one_line(error)}: {error.filename or ''}".rstrip(": ")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            line += ": free some space there, then repeat the command, or continue with --resume"
        return line
    lines = str(error).strip().splitlines() or ["out of memory"]
    return lines[-1]


def _exit(message, status):
    print(message, file=sys.stderr, flush=True)
    if "DMLC_ROLE" in os.environ and status != STATUS:
        # A worker that exits normally waits for the others, which wait for its gradients.
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def parse_options(texts):
    """A network's options from ``key=value`` strings, with values in YAML."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UserError(f"--option {text!r}: write key=value, such as width_multiplier=1")
        if key == "pretrained":
            raise UserError(f"--option {text!r}: weights are no option of a network")
        if key == "name":
            raise UserError(f"--option {text!r}: the network already has a name")
        try:
            options[key] = parse_yaml(value)
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: such as 2020-13-45
            raise UserError(f"--option {text!r}: the value is not YAML") from None
    return options
