"""What all scripts share: one-line errors and exit statuses."""

import os
import sys
import traceback

import yaml

from .configs import parse_yaml
from .errors import UserError
from .framework import import_mxnet
from .interrupt import STATUS, Stopped

import_mxnet()

import mxnet as mx  # noqa: E402


def run(main):
    """Call ``main()``; exit with 2 and one line on bad input, with 75 or 130 if asked to stop."""
    try:
        main()
    except UserError as error:
        _exit(f"error: {error}", 2)
    except OSError as error:  # a full disk, a folder that cannot be written
        _exit(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "), 2)
    except UnicodeEncodeError as error:  # such as a file's name that no output can show
        _exit(f"error: {ascii(error.object)} is not in UTF-8: rename the file or folder", 2)
    except (mx.base.MXNetError, MemoryError) as error:  # such as out of memory
        lines = str(error).strip().splitlines() or ["out of memory"]
        _exit(f"error: {lines[-1]}", 2)
    except Stopped as stopped:
        _exit(str(stopped), STATUS)
    except KeyboardInterrupt:
        _exit("interrupted", 130)
    except Exception:
        if "DMLC_ROLE" not in os.environ:
            raise
        _exit(traceback.format_exc(), 1)


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
        if key == "name":
            raise UserError(f"--option {text!r}: the network already has a name")
        try:
            options[key] = parse_yaml(value)
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: such as 2020-13-45
            raise UserError(f"--option {text!r}: the value is not YAML") from None
    return options
