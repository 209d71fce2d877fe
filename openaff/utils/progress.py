"""Progress bars: a terminal's, in a notebook the notebook's, and none in a file or a pipe."""

import sys

from tqdm.auto import tqdm


def progress_bar(iterable=None, hidden=False, **options):
    """A bar that goes when its work is done, unless ``leave=True``; see :class:`tqdm.tqdm`.

    Parameters
    ----------
    iterable : iterable, optional
        What to go through; otherwise the bar is a context, and its ``update`` counts.
    hidden : bool
        Show none, such as in all processes but the first.
    """
    # A notebook's output is no terminal, and shows bars all the same.
    disable = True if hidden else False if "ipykernel" in sys.modules else None
    return tqdm(iterable, disable=disable, **{"leave": False, **options})
