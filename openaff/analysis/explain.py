"""What networks see in images, as a figure: heat maps, predictions, and what the fusions weigh."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import mxnet as mx
import numpy as np

from ..data.preprocessing import Preprocessing
from ..data.transforms import IGNORE
from ..tasks import TASKS
from ..utils.errors import UserError, suggest
from ..utils.progress import progress_bar
from .cam import (
    METHODS,
    ClassifierOutputTarget,
    SemanticSegmentationTarget,
    deletion_insertion,
    energy_inside,
)
from .fusion_weights import fusion_weights

STRENGTH = 0.5  # of a heat map over its image
LEAST = 0.02  # weights are coloured over at least 0.5 - LEAST to 0.5 + LEAST


@dataclass
class View:
    """What one network says of one image, and where it looks."""

    network: str
    predicted: str  # of a dense network: the class explained
    share: float  # its probability; of a dense network its share of the pixels
    target: str  # the class that the maps explain
    right: Optional[bool] = None  # where the label is known
    iou: Optional[float] = None  # of a dense network's target, where the truth is known
    maps: Dict[str, np.ndarray] = field(default_factory=dict)  # method -> float32 (H, W) in 0..1
    measures: Dict[str, Dict[str, float]] = field(default_factory=dict)  # method -> figures
    weights: Dict[str, np.ndarray] = field(default_factory=dict)  # fusion -> float32 (C, h, w)

    def words(self):
        """What stands below its maps: ``*`` marks a wrong prediction."""
        words = f"{self.predicted} {self.share:.0%}" + ("*" if self.right is False else "")
        if self.predicted != self.target:
            words += f"\nmap: {self.target}"
        return words if self.iou is None else words + f", IoU {self.iou:.0%}"

    def record(self):
        """The same as JSON can hold it, without arrays."""
        return {
            "network": self.network,
            "predicted": self.predicted,
            "share": self.share,
            "target": self.target,
            "right": self.right,
            "iou": self.iou,
            "methods": list(self.maps),
            "measures": self.measures,
            "mean_weights": {name: float(each.mean()) for name, each in self.weights.items()},
        }


@dataclass
class Row:
    """An image with one view a network."""

    picture: np.ndarray  # uint8 (H, W, 3), as the first network sees it
    title: str
    label: Optional[str]
    views: List[View]


def explain(
    subjects,
    images,
    titles=None,
    truth=None,
    methods=("gradcam",),
    target=None,
    layer=None,
    weights=False,
    measures=False,
):
    """Where networks look in images.

    Parameters
    ----------
    subjects : dict of str to Subject
        Heading -> network, see :mod:`openaff.deploy.subject`.  All have the same classes.
    images : list
        Paths, PIL images, or uint8 arrays (H, W, 3), which are taken as they are.
    titles : list of str, optional
        One an image.
    truth : list, optional
        One an image: the class's number or, of networks for segmentation, the map (H, W) of the
        classes.  None where it is not known.
    methods : sequence of str
        Keys of :data:`openaff.analysis.cam.METHODS`.
    target : str, optional
        The class to explain; by default what each network says: the most probable class or, in
        segmentation, the one of most pixels.
    layer : str, optional
        A block's structural name; by default the last map that the head sees.
    weights : bool
        Also what every fusion weighs.
    measures : bool
        Also deletion and insertion or, of networks for segmentation, the share of the map's energy
        inside the class's true pixels.

    Returns
    -------
    list of Row

    Raises
    ------
    UserError
        An unknown method, class or layer, networks with other classes, an image that cannot be
        read or an array of another kind, other numbers of titles or true classes than images,
        ``weights`` of networks that have none, or ``measures`` without the truth.
    """
    first = next(iter(subjects.values()))
    for name in methods:
        if name not in METHODS:
            raise UserError(
                f"there is no method {name!r}{suggest(name, METHODS)} (there are: "
                f"{', '.join(METHODS)})"
            )
    for title, subject in subjects.items():
        if subject.class_names != first.class_names:
            raise UserError(f"{title} has other classes than {next(iter(subjects))}")
    if target is not None and target not in first.class_names:
        raise UserError(
            f"there is no class {target!r}{suggest(target, first.class_names)} (there are "
            f"{len(first.class_names)}: {', '.join(first.class_names[:5])}, ...)"
        )
    truth = [None] * len(images) if truth is None else truth
    titles = [""] * len(images) if titles is None else titles
    if not len(images) == len(titles) == len(truth):
        raise UserError(
            f"{len(images)} images, {len(titles)} titles and {len(truth)} true classes or maps: "
            "give as many of each"
        )
    for image, true in zip(images, truth):
        if isinstance(image, np.ndarray) and (image.dtype != np.uint8 or image.ndim != 3):
            raise UserError(f"an array must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
        if np.ndim(true) == 0 and true is not None and true not in range(len(first.class_names)):
            raise UserError(f"the true class {true} is none of {len(first.class_names)}")
    looks = {title: Look(subject, methods, layer) for title, subject in subjects.items()}
    rows = []
    for image, title, true in zip(progress_bar(images, unit="image"), titles, truth):
        row = Row(None, title, None, [])
        for heading, look in looks.items():
            seen = look.see(image)
            row.views.append(look(heading, seen, true, target, measures))
            if weights:
                row.views[-1].weights = look.weights(seen)
            row.picture = seen if row.picture is None else row.picture
        if np.ndim(true) == 0 and true is not None:
            row.label = first.class_names[true]
        rows.append(row)
    if weights and not any(view.weights for row in rows for view in row.views):
        raise UserError("none of the networks has fusions that compute weights")
    return rows


class Look:
    """One network with the methods that look into it."""

    def __init__(self, subject, methods, layer):
        self.net, self.names = subject.net, subject.class_names
        self.task = TASKS[subject.task]
        self.prepare = Preprocessing(
            subject.input_shape,
            subject.mean,
            subject.std,
            subject.crop_ratio,
            self.task.dense,
            subject.short_side,
        )
        self.methods = {name: METHODS[name](self.net, layer) for name in methods}

    def see(self, image):
        """uint8 (H, W, 3)."""
        return image if isinstance(image, np.ndarray) else self.prepare.see(image)

    def batch(self, seen):
        """NDArray (1, 3, H, W), on the network's device."""
        device = next(iter(self.net.collect_params().values())).list_ctx()[0]
        return mx.nd.array(self.prepare.normalize(seen[None]), ctx=device)

    def weights(self, seen):
        try:
            fusions = fusion_weights(self.net, self.batch(seen))
        except UserError:  # a plain sum has none
            return {}
        return {
            f"fusion {number}" + f", round {index}" * (len(rounds) > 1): each[0]
            for number, rounds in enumerate(fusions, start=1)
            for index, each in enumerate(rounds, start=1)
        }

    def __call__(self, heading, seen, true, target, measures):
        """The :class:`View` of one image."""
        batch = self.batch(seen)
        outputs = self.net(batch).asnumpy()[:, : max(1, len(self.names))]
        view = self._dense(outputs, true, target) if self.task.dense else self._label(outputs, true)
        view.network, view.target = heading, target or view.predicted
        category = self.names.index(view.target)
        what = SemanticSegmentationTarget if self.task.dense else ClassifierOutputTarget
        for name, method in self.methods.items():
            view.maps[name] = method(batch, [what(category)])[0]
            if measures:
                view.measures[name] = self._measure(view.maps[name], batch, true, category)
        return view

    def _label(self, outputs, true):
        if not issubclass(self.task, TASKS["classification"]):
            raise UserError(f"heat maps explain classes, not what {self.task.key} predicts")
        (((predicted, probability),),) = self.task.decode(outputs, self.names, top=1)
        right = None if true is None else self.names[true] == predicted
        return View("", predicted, probability, "", right)

    def _dense(self, outputs, true, target):
        (decoded,) = self.task.decode(outputs, self.names)
        pixels = decoded.pixels()
        name = target or next(iter(pixels))
        view = View("", name, pixels.get(name, 0) / decoded.classes.size, "")
        if true is not None:
            found, there = (each == self.names.index(name) for each in (decoded.classes, true))
            found = found & (true != IGNORE)
            union = (found | there).sum()
            view.iou = float((found & there).sum() / union) if union else None
        return view

    def _used(self, batch):
        """The logits of the classes that have a name; the authors' networks have more outputs."""
        return self.net(batch).slice_axis(axis=1, begin=0, end=len(self.names))

    def _measure(self, heat, batch, true, category):
        if not self.task.dense:
            deletion, insertion = deletion_insertion(self._used, batch, heat[None], [category])
            return {"deletion": float(deletion.mean()), "insertion": float(insertion.mean())}
        if true is None:
            raise UserError("measures of networks for segmentation need the truth: a test image's")
        counts = true != IGNORE
        inside = float(energy_inside((heat * counts)[None], (true == category)[None])[0])
        area = float((true == category).sum() / max(1, counts.sum()))
        return {"energy_inside": None if np.isnan(inside) else inside, "area": area}


def draw(rows):
    """A figure: a row an image, a column a map; below it what the network says.

    Parameters
    ----------
    rows : list of Row
        What :func:`explain` gave.

    Returns
    -------
    matplotlib.figure.Figure
        It belongs to no backend: a notebook shows it, and ``savefig`` writes it.
    """
    from matplotlib.figure import Figure

    columns = _columns(rows[0])
    weights = [each.mean(0) for row in rows for view in row.views for each in view.weights.values()]
    limit = max([LEAST, *(np.abs(each - 0.5).max() for each in weights)])
    height, width = rows[0].picture.shape[:2]
    figure = Figure(
        figsize=(
            1.7 * (len(columns) + 1) + 1.1 * bool(weights),
            (1.7 * height / width + 0.35) * len(rows) + 0.4,
        ),
        constrained_layout=True,
    )
    axes = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    for row, (first, *others) in zip(rows, axes):
        first.imshow(row.picture)
        label = row.title if row.label in (None, row.title) else f"{row.title}\n{row.label}"
        first.set_xlabel(label.strip(), fontsize="small")
        for axis, column in zip(others, columns):
            shown = column.draw(axis, row, limit)
    for axis, column in zip(axes[0][1:], columns):
        axis.set_title(column.heading, fontsize="small")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    if weights:
        figure.colorbar(shown, ax=axes, shrink=0.6, label="mean weight of the learned branch")
    return figure


@dataclass
class Column:
    """A method's map of a network, or the weights of one of its fusions."""

    view: int  # of which network
    heading: str
    method: Optional[str] = None
    fusion: Optional[str] = None

    def draw(self, axis, row, limit):
        view = row.views[self.view]
        if self.method is None:
            values = view.weights[self.fusion].mean(axis=0)
            return axis.imshow(values, vmin=0.5 - limit, vmax=0.5 + limit, cmap="coolwarm")
        heat = view.maps[self.method]
        axis.imshow(row.picture, extent=(0, heat.shape[1], heat.shape[0], 0))
        axis.set_xlabel(view.words(), fontsize="small")
        return axis.imshow(
            heat,
            vmin=0,
            vmax=1.1,  # without the colours' dark red end, which would hide the strongest spots
            cmap="turbo",
            alpha=STRENGTH,
            interpolation="bilinear",
            extent=(0, heat.shape[1], heat.shape[0], 0),
        )


def _columns(row):
    """The columns of maps, then those of weights."""
    maps, weights = [], []
    for index, view in enumerate(row.views):
        for method in view.maps:
            more = f"\n{method}" if len(view.maps) > 1 else ""
            maps.append(Column(index, view.network + more, method=method))
        for fusion, each in view.weights.items():
            heading = f"{view.network}\n{fusion}, {'x'.join(map(str, each.shape))}"
            weights.append(Column(index, heading, fusion=fusion))
    return maps + weights


def records(rows) -> List[Dict[str, Any]]:
    """What :func:`explain` gave, as JSON can hold it: without pictures and maps."""
    return [
        {
            "image": row.title,
            "label": row.label,
            "networks": [view.record() for view in row.views],
        }
        for row in rows
    ]
