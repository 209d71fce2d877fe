"""``python -m openaff``: the same as the command ``openaff``."""

from .commands import main

if __name__ == "__main__":
    main()
