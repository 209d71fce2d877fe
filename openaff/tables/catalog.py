"""The tables: their rows, with the published figures and what trains each of them."""

import dataclasses
import pathlib
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data import DATASETS
from ..fusion import FUSIONS
from ..utils.configs import defaults, parse_yaml
from ..utils.errors import UserError, one_line, suggest
from ..utils.packaged import TABLES

KINDS = {  # a table's kind -> its heading on the page
    "paper": "The paper's tables",
    "logs": "The authors' repository: printed tables and training logs",
    "ours": "Tables of our own",
}
EVIDENCE = "evidence"  # the kind that has a page of its own, see openaff.tables.evidence
OF_A_RUN = ("model", "options", "config", "devices", "start_from", "checkpoint") + (
    "reduced",
    "reduced_options",
    "reduced_epochs",
)  # fields of a row
UNUSABLE = (  # what reading a file that is something else may raise
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    yaml.YAMLError,
    OmegaConfBaseException,
)


@dataclass(frozen=True)
class Figure:
    """What a table's figures are, in percent.

    Parameters
    ----------
    metric : str
        Key of the metric, a fraction of 1, that results have for it.
    larger_is_better : bool
        False: the figure is the metric's complement to 100%.
    """

    metric: str
    larger_is_better: bool = True

    def percent(self, result, which="last"):
        """The figure of a result file, of its ``last`` or its ``best`` epoch."""
        value = 100 * result[f"{which}_{self.metric}"]
        return value if self.larger_is_better else 100 - value


FIGURES = {
    "top-1 accuracy": Figure("accuracy"),
    "top-1 error": Figure("accuracy", larger_is_better=False),
    "mean IoU": Figure("mean_iou"),
}


@dataclass(frozen=True)
class Row:
    """A network's line in a table.

    Several figures may come from one training run.  Then one row has what trains it, and the others
    name that row as ``run``.
    """

    id: str  # begins with its table's key
    name: str
    published: Optional[float] = None  # percent
    labels: Optional[str] = None  # CIFAR-100: granularity of the published figure, fine or coarse
    printed_parameters: Optional[float] = None  # millions
    fusion: Optional[str] = None  # in words, what tells it from its table's or group's others
    run: Optional[str] = None  # id of the row whose run this is, after load_tables never None
    model: Optional[str] = None  # None: a network that is not here
    options: Dict[str, Any] = field(default_factory=dict)
    config: Optional[str] = None  # the recipe of the published figure
    devices: int = 1  # that it was trained on: its batch is so many of the recipe's
    start_from: Optional[str] = None  # id of the row whose best weights it starts from
    checkpoint: Optional[str] = None  # the authors' file, see openaff.models.pretrained
    reduced: Optional[str] = None  # a recipe that two CPU cores can finish
    reduced_options: Dict[str, Any] = field(default_factory=dict)  # of the network in it
    reduced_epochs: Optional[int] = None  # instead of the recipe's
    seeds: int = 1  # that the reduced form is to be run with: 0, 1, ...
    compare: List[str] = field(default_factory=list)  # ids of rows; the cost of a point: the first
    note: Optional[str] = None
    metric: Optional[str] = None  # the table's or the group's, as the next one
    dataset: Optional[str] = None
    group: Optional[str] = None  # the group's key
    blocks: Optional[int] = None  # a stage, b

    @property
    def figure(self):
        return FIGURES[self.metric]


@dataclass(frozen=True)
class Series:
    """A line of a :class:`Group`: a fusion, with a figure for each of the group's networks."""

    key: str  # the fusion's
    name: str  # in words
    published: Optional[List[Any]] = None  # of a line with a run: by default that one's
    options: Dict[str, Any] = field(default_factory=dict)  # of the networks, in every protocol
    run: Optional[str] = None  # the line whose runs these are: TABLE.GROUP.FUSION, or a row's id
    seeds: int = 1


@dataclass(frozen=True)
class Group:
    """Figures by fusion and network, on one data set by one recipe; see :meth:`rows`."""

    key: str
    title: str
    metric: str
    dataset: str
    backbones: List[str]
    series: List[Series]
    blocks: List[int] = field(default_factory=list)  # a stage, of each backbone
    labels: Optional[str] = None
    config: Optional[str] = None
    options: Dict[str, Any] = field(default_factory=dict)  # in the recipe of the published figures
    reduced: Optional[str] = None  # recipe of the first network's reduced form
    compare: List[str] = field(default_factory=list)  # keys of lines that all are compared with
    note: Optional[str] = None

    def rows(self, table):
        """The :class:`Row` of every figure; their ids are ``TABLE.GROUP.FUSION.bBLOCKS``."""
        for series in self.series:
            FUSIONS[series.key]  # an unknown one is refused
            figures = series.published
            if figures is None and series.run:
                figures = [None] * len(self.backbones)
            if figures is None or not len(figures) == len(self.backbones) == len(
                self.blocks or [0]
            ):
                raise ValueError(f"{self.key}, {series.key}: a figure, or null, for each backbone")
            for index, (backbone, published) in enumerate(zip(self.backbones, figures)):
                if not isinstance(published, (int, float, type(None))):
                    raise ValueError(f"{self.key}, {series.key}: {published!r} is no figure")
                end = f".b{self.blocks[index]}" if self.blocks else ""
                values = {
                    "id": f"{table}.{self.key}.{series.key}{end}",
                    "name": f"{self.title}, {series.name}",
                    "published": published,
                    "labels": self.labels,
                    "fusion": series.name,
                    "metric": self.metric,
                    "dataset": self.dataset,
                    "group": self.key,
                    "blocks": self.blocks[index] if self.blocks else None,
                    "seeds": series.seeds,
                    "compare": [
                        f"{table}.{self.key}.{key}{end}" for key in self._before(series.key)
                    ],
                }
                if series.run:
                    values["run"] = series.run + end
                else:
                    values.update(
                        model=f"{series.key}_{backbone}",
                        options={**self.options, **series.options},
                        config=self.config,
                        reduced=None if index else self.reduced,
                        reduced_options={} if index or not self.reduced else series.options,
                    )
                yield Row(**values)

    def _before(self, key):
        """The lines that a line is compared with: of two that all are, one with the other."""
        return self.compare[: self.compare.index(key)] if key in self.compare else self.compare


@dataclass(frozen=True)
class Block:
    """A residual block whose multiply-adds are counted."""

    kind: str  # a class of openaff.blocks
    channels: int  # C: of the 3x3 convolutions
    in_channels: int
    stride: int
    reduction: int  # of its AFF
    size: int  # height and width of its output, pixels


@dataclass(frozen=True)
class Count:
    """A printed number of multiply-adds, to be counted: of a network or of a block's AFF."""

    id: str
    name: str
    printed: str
    model: Optional[str] = None
    options: Dict[str, Any] = field(default_factory=dict)
    block: Optional[Block] = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of figures, in percent, or of counts."""

    key: str
    title: str
    kind: str  # a key of KINDS
    source: str
    rows: List[Row] = field(default_factory=list)
    groups: List[Group] = field(default_factory=list)
    counts: List[Count] = field(default_factory=list)
    note: Optional[str] = None


class Catalog(dict):
    """Key -> :class:`Table`."""

    def rows(self):
        """All rows of all tables by id."""
        return {row.id: row for table in self.values() for row in table.rows}

    def row(self, row_id):
        """The :class:`Row` of an id."""
        rows = self.rows()
        if row_id not in rows:
            raise UserError(
                f"there is no row {row_id!r}{suggest(row_id, rows)}; --list shows them all"
            )
        return rows[row_id]


def load_tables(folder=TABLES):
    """The :class:`Catalog` of the YAML files in a folder, by default of openaff's own.

    Raises
    ------
    UserError
        No tables; a file that is none, an id that stands twice, or a reference to no row.
    """
    catalog, rows = Catalog(), {}
    paths = sorted(pathlib.Path(folder).glob("*.yaml"))
    if not paths:
        raise UserError(f"{folder} holds no tables, which are .yaml files")
    for path in paths:
        try:
            table = catalog[path.stem] = _table(
                path.stem, parse_yaml(path.read_text(encoding="utf-8"))
            )
            for row in table.rows:
                if row.id in rows:
                    raise ValueError(f"the id {row.id} stands twice")
                rows[row.id] = row
        except UNUSABLE as error:
            raise UserError(f"{path} is no table: {reason(error)}") from None
    for row in rows.values():
        _check_references(row, rows)
    for table in catalog.values():
        table.rows[:] = [_resolved(row, rows) for row in table.rows]
    return catalog


def _typed(kind, values):
    """A dataclass's instance, its names and types checked."""
    return OmegaConf.to_object(OmegaConf.merge(defaults(kind), values))


def _table(key, values):
    settled = {name: values.pop(name, None) for name in ("metric", "dataset")}
    groups = [_typed(Group, group) for group in values.pop("groups", [])]
    rows = [row for group in groups for row in group.rows(key)]
    rows += [_typed(Row, {**settled, **row}) for row in values.pop("rows", [])]
    counts = [_typed(Count, count) for count in values.pop("counts", [])]
    table = Table(key=key, rows=rows, groups=groups, counts=counts, **values)
    if table.kind not in (*KINDS, EVIDENCE):
        raise ValueError(f"kind {table.kind!r} is none of {', '.join(KINDS)}, {EVIDENCE}")
    if not rows and not counts:
        raise ValueError("it has no rows")
    for row in rows:
        _check_row(row, key)
    return table


def _check_row(row, key):
    if not row.id.startswith(key + "."):
        raise ValueError(f"the id {row.id} does not begin with {key}.")
    if row.metric not in FIGURES or row.dataset not in DATASETS:
        raise ValueError(f"{row.id}: {row.metric} on {row.dataset} is not known")
    known = [labels.key for labels in DATASETS[row.dataset].labels]
    if row.labels not in (None, *known):
        raise ValueError(f"{row.id}: labels {row.labels!r} are none of {', '.join(known)}")
    default = Row(id="", name="")
    if row.run and any(getattr(row, name) != getattr(default, name) for name in OF_A_RUN):
        raise ValueError(f"{row.id} has a run: what trains it stands there")


def _check_references(row, rows):
    for other in row.compare:
        if other not in rows:
            raise UserError(f"{row.id}: it is compared with {other}, and there is no such row")
    for key in ("run", "start_from"):
        other = getattr(row, key)
        if other is None:
            continue
        if other not in rows:
            raise UserError(f"{row.id}: {key} is {other}, and there is no such row")
        if rows[other].run is not None or rows[other].dataset != row.dataset:
            raise UserError(f"{row.id}: {key} is {other}, which is no run on {row.dataset}")


def _resolved(row, rows):
    run = rows[row.run or row.id]
    values = {key: getattr(run, key) for key in OF_A_RUN}
    if row.published is None and row.metric == run.metric:
        values["published"] = run.published
    return dataclasses.replace(row, run=run.id, **values)


def reason(error):
    """An error of :data:`UNUSABLE` in one line."""
    return f"it has no {error}" if type(error) is KeyError else one_line(error)
