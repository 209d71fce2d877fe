"""Do networks look at objects?  Measured over a test split, for networks of several seeds."""

import math
import statistics
from dataclasses import dataclass
from typing import Dict, List

import mxnet as mx
import numpy as np
from scipy import ndimage

from ...data.transforms import IGNORE
from ...tasks.segmentation import predicted_classes
from ...utils.progress import progress_bar
from .measures import deletion_insertion, energy_inside
from .targets import ClassifierOutputTarget, SemanticSegmentationTarget

SMALLEST = 12  # pixels of an object that is measured


@dataclass
class Figures:
    """What was measured of one network: name -> one value an object or image."""

    values: Dict[str, np.ndarray]

    def mean(self, name, chosen):
        """Of the objects ``chosen`` (a mask), without those that have no value."""
        values = self.values[name][chosen]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def objects_of(targets, classes):
    """The objects of a segmentation data set: classes that have one connected part in an image.

    So the size of what the map should mark is known.  The class 0 counts, too, where it is one
    part.

    Parameters
    ----------
    targets : sequence of array
        Maps (H, W) of classes.
    classes : int

    Returns
    -------
    list of (int, int, int)
        Number of the image, class, pixels of the object.
    """
    objects = []
    for index, target in enumerate(targets):
        for category in range(classes):
            mask = target == category
            pixels = int(mask.sum())
            if pixels >= SMALLEST and ndimage.label(mask, np.ones((3, 3)))[1] == 1:
                objects.append((index, category, pixels))
    return objects


def energy_of_objects(make_cam, normalize, test, objects):
    """For each object the share of the map's energy inside it, and IoU of its class.

    Pixels that do not count are left out of both.

    Parameters
    ----------
    make_cam : callable
        () -> a method on the network, see :mod:`~openaff.analysis.cam.methods`.
    normalize : callable
        uint8 (N, H, W, 3) -> float32 (N, 3, H, W).
    test : image set
        Its targets are maps.
    objects : list
        See :func:`objects_of`.

    Returns
    -------
    Figures
        ``energy`` and ``iou``.
    """
    cam, energy, iou = make_cam(), [], []
    for index, category, _ in progress_bar(objects, unit="object"):
        images, maps = test.take([index], None)
        mask = maps[0] == category
        counts = maps[0] != IGNORE
        heat = cam(normalize(images), [SemanticSegmentationTarget(category, mask)])
        energy.append(energy_inside(heat * counts, mask[None])[0])
        found = counts & (predicted_classes(cam.outputs.asnumpy())[0] == category)
        iou.append((found & mask).sum() / (found | mask).sum())
    return Figures({"energy": np.array(energy), "iou": np.array(iou)})


def fall_and_rise(make_cam, net, images, categories, batch_size=50):
    """Deletion and insertion of each image, for the map of its true class.

    Parameters
    ----------
    make_cam : callable
        () -> a method on the network.
    net : Block
    images : numpy.ndarray
        float32 (N, 3, H, W), normalised.
    categories : sequence of int
    batch_size : int

    Returns
    -------
    Figures
        ``probability`` of the whole image, ``deletion`` and ``insertion`` (areas under the
        curves, in 0..1), and ``difference``, insertion - deletion.
    """
    cam, parts = make_cam(), []
    for start in progress_bar(range(0, len(images), batch_size), unit="batch"):
        batch = mx.nd.array(images[start : start + batch_size])
        classes = categories[start : start + batch_size]
        heat = cam(batch, [ClassifierOutputTarget(each) for each in classes])
        deletion, insertion = deletion_insertion(net, batch, heat, classes)
        fall, rise = deletion.mean(axis=1), insertion.mean(axis=1)
        parts.append((deletion[:, 0], fall, rise, rise - fall))
    names = ("probability", "deletion", "insertion", "difference")
    return Figures(dict(zip(names, np.concatenate(parts, axis=1))))


def summarise(name, runs: List[Figures], baseline: List[Figures], chosen):
    """Mean and spread of a figure over seeds, and its difference to other networks' on the same.

    An object whose map is all 0 has no energy, and is left out.

    Returns
    -------
    dict
        ``mean``; ``std`` over seeds (None of one seed); ``difference`` to the baseline, paired by
        object and averaged over seeds, and half the width of its 95% interval over objects;
        ``without``: the share of objects and seeds that are left out.  All but it are None where
        there is nothing to compare.
    """
    means = [run.mean(name, chosen) for run in runs]
    means = [mean for mean in means if math.isfinite(mean)]
    ours, theirs = ([run.values[name][chosen] for run in group] for group in (runs, baseline))
    known = np.isfinite(ours).any(axis=0) & np.isfinite(theirs).any(axis=0)
    without = float(np.mean(~np.isfinite(ours)))
    if not known.any():
        return {**dict.fromkeys(("mean", "std", "difference", "interval")), "without": without}
    differences = np.nanmean(np.array(ours)[:, known], axis=0)
    differences -= np.nanmean(np.array(theirs)[:, known], axis=0)
    count = len(differences)
    return {
        "mean": statistics.fmean(means),
        "std": statistics.stdev(means) if len(means) > 1 else None,
        "difference": float(differences.mean()),
        "interval": float(1.96 * differences.std(ddof=1) / math.sqrt(count)) if count > 1 else None,
        "without": without,
    }
