"""What all scripts share: errors as one line, exit statuses."""

import sys

from .errors import UserError


def run(main):
    """Call ``main()`` and exit: 2 with one line for bad input, 130 for Ctrl-C."""
    try:
        main()
    except UserError as error:
        sys.exit(_fail(f"error: {error}", 2))
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.exit(_fail(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))


def _fail(message, status):
    print(message, file=sys.stderr)
    return status
