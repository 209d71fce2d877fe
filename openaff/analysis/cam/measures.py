"""Whether a map means something: does it lie on the object, and does the network need it?"""

import mxnet as mx
import numpy as np

from ...utils.errors import UserError, positive_int
from .methods import resized


def energy_inside(maps, masks):
    """The share of each map's energy that lies inside the object: the energy-based pointing game.

    Score-CAM (Wang et al., CVPR Workshops 2020), section 4.3.

    Parameters
    ----------
    maps : array
        (N, H, W), at least 0.
    masks : array
        (N, H, W): 1 or True inside the object's box or mask.

    Returns
    -------
    numpy.ndarray
        float64 (N,) in 0..1; NaN of maps that are all 0.

    Raises
    ------
    UserError
        The shapes differ.
    """
    maps, masks = np.asarray(maps, "float64"), np.asarray(masks)
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise UserError(f"maps {maps.shape} and masks {masks.shape} must both be (N, H, W)")
    inside, whole = ((each).sum(axis=(1, 2)) for each in (maps * masks, maps))
    return np.where(whole > 0, inside / np.where(whole > 0, whole, 1), np.nan)


def deletion_insertion(net, images, maps, categories, steps=16):
    """How a class's probability falls when the marked pixels go, and rises when they alone stay.

    RISE (Petsiuk et al., BMVC 2018), section 4.3: pixels go from the most marked to the least,
    ``1 / steps`` of them at a time.  A pixel that is gone has the value of the blurred image, so
    that no borders arise.

    Parameters
    ----------
    net : callable
        NDArray (N, 3, H, W), normalised -> logits (N, K).
    images : NDArray
        float (N, 3, H, W).
    maps : array
        (N, H, W).
    categories : sequence of int
        The class of each image.
    steps : int
        Steps from the whole image to nothing.

    Returns
    -------
    deletion, insertion : numpy.ndarray
        float64 (N, steps + 1): probabilities, from no pixel gone or put back to all.  The area
        under each is its mean: low for a good map in deletion, high in insertion.

    Raises
    ------
    UserError
        The shapes differ, a category is no class of the network, or ``steps`` is no positive
        integer.
    """
    positive_int("steps", steps)
    maps, pixels = np.asarray(maps), images.asnumpy()
    if maps.shape != (len(pixels), *pixels.shape[2:]) or len(categories) != len(pixels):
        raise UserError(
            f"images {pixels.shape}, maps {maps.shape} and {len(categories)} categories must go "
            "together: (N, 3, H, W), (N, H, W) and N"
        )
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    ranks = ranks.reshape(maps.shape)[:, None]  # 0: the most marked pixel
    blank = blurred(pixels)
    curves = np.empty((2, len(pixels), steps + 1))
    for step in range(steps + 1):
        marked = ranks < round(step * flat.shape[1] / steps)
        for curve, keep in zip(curves, (~marked, marked)):
            seen = mx.nd.array(np.where(keep, pixels, blank), ctx=images.context)
            probabilities = net(seen.astype(images.dtype)).softmax().asnumpy()
            if not all(0 <= category < probabilities.shape[1] for category in categories):
                raise UserError(
                    f"categories must be 0 to {probabilities.shape[1] - 1}, not {list(categories)}"
                )
            curve[:, step] = probabilities[np.arange(len(pixels)), categories]
    return curves[0], curves[1]


def blurred(images, cells=4):
    """(N, C, H, W): what is left of images seen as ``cells`` x ``cells`` means, put smoothly."""
    height, width = images.shape[2:]
    rows, columns = (
        np.array_split(np.arange(length), min(cells, length)) for length in (height, width)
    )
    means = [
        [images[:, :, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean((2, 3)) for c in columns]
        for r in rows
    ]
    coarse = np.moveaxis(np.array(means), (2, 3), (0, 1))  # (N, C, cells, cells)
    flat = resized(coarse.reshape(-1, *coarse.shape[2:]), (height, width))
    return flat.reshape(images.shape).astype(images.dtype)
