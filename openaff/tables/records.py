"""The published tables, and ours beside them."""

import dataclasses
import functools
import json
import pathlib
import shlex
import statistics
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..analysis.complexity import summarize
from ..data import DATASETS
from ..models import create_model
from ..training.config import load_config
from ..utils.errors import UserError, one_line, suggest
from ..utils.files import write_json

PROTOCOLS = ("paper", "reduced")
METRICS = ("top-1 accuracy", "top-1 error")
REDUCED_TABLE = "fusions-resnet8"
REDUCED_RECIPE = "configs/cifar/aff_resnet8.yaml"  # the network is the row's, at m = 1
WHEREABOUTS = ("root", "download", "workers")  # settings of data that change no result
WORDS = tuple(labels.words for labels in DATASETS["cifar100"].labels)
OF_A_RUN = ("model", "options", "config", "devices", "start_from", "checkpoint")  # keys of a row
_UNUSABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    yaml.YAMLError,
    OmegaConfBaseException,
)
CURVE = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass(frozen=True)
class Row:
    """A network's line in a table.

    Several figures may come from one training run.  Then one row has what trains it, and the others
    name that row as ``run``.
    """

    id: str  # begins with its table's key
    name: str
    published: Optional[float] = None  # percent
    labels: Optional[str] = None  # CIFAR-100: the granularity of the published figure
    printed_parameters: Optional[str] = None
    run: Optional[str] = None  # id of the row whose run this is, after load_tables never None
    model: Optional[str] = None  # None: a network that is not here
    options: Dict[str, Any] = field(default_factory=dict)
    config: Optional[str] = None  # the recipe of the published figure
    devices: int = 1  # that it was trained on: its batch is so many of the recipe's
    start_from: Optional[str] = None  # id of the row whose best weights it starts from
    checkpoint: Optional[str] = None  # the authors' file, see openaff.models.pretrained
    note: Optional[str] = None


@dataclass(frozen=True)
class Table:
    """A published table; ``metric`` is of all its rows, in percent."""

    key: str
    title: str
    source: str
    metric: str
    dataset: str
    rows: List[Row]
    note: Optional[str] = None


def load_tables(root):
    """Key -> :class:`Table`, of the YAML files in ``root/configs/tables``.

    Raises
    ------
    UserError
        A file that is no table, an id that stands twice, or a reference to no row.
    """
    tables, rows = {}, {}
    for path in sorted(pathlib.Path(root, "configs", "tables").glob("*.yaml")):
        try:
            table = tables[path.stem] = _table(path.stem, yaml.safe_load(path.read_text()))
            for row in table.rows:
                if row.id in rows:
                    raise ValueError(f"the id {row.id} stands twice")
                rows[row.id] = row, table
        except _UNUSABLE as error:
            raise UserError(f"{path} is no table: {_reason(error)}") from None
    for row, table in rows.values():
        _check_references(row, table, rows)
    for table in tables.values():
        table.rows[:] = [_resolved(row, rows) for row in table.rows]
    return tables


def _table(key, values):
    kind = OmegaConf.structured(Row)  # checks names and types
    labels = (None, "not established", *WORDS)
    rows = [OmegaConf.to_object(OmegaConf.merge(kind, row)) for row in values["rows"]]
    table = Table(key=key, **{**values, "rows": rows})
    if table.metric not in METRICS or table.dataset not in DATASETS:
        raise ValueError(f"{table.metric} on {table.dataset} is not known")
    for row in rows:
        if not row.id.startswith(key + "."):
            raise ValueError(f"the id {row.id} does not begin with {key}.")
        if row.labels not in labels:
            raise ValueError(f"{row.id}: labels {row.labels!r} are none of {labels}")
        if row.run and any(getattr(row, name) != getattr(kind, name) for name in OF_A_RUN):
            raise ValueError(f"{row.id} has a run: what trains it stands there")
    return table


def _check_references(row, table, rows):
    for key in ("run", "start_from"):
        other = getattr(row, key)
        if other is None:
            continue
        if other not in rows:
            raise UserError(f"{row.id}: {key} is {other}, and there is no such row")
        if rows[other][0].run is not None or rows[other][1].dataset != table.dataset:
            raise UserError(f"{row.id}: {key} is {other}, which is no run on {table.dataset}")


def _resolved(row, rows):
    if row.run is None:
        return dataclasses.replace(row, run=row.id)
    run, _ = rows[row.run]
    return dataclasses.replace(row, **{key: getattr(run, key) for key in OF_A_RUN})


def find_row(tables, row_id):
    """The :class:`Row` of an id, and its :class:`Table`."""
    rows = {row.id: (row, table) for table in tables.values() for row in table.rows}
    if row_id not in rows:
        raise UserError(f"there is no row {row_id!r}{suggest(row_id, rows)}; --list shows them all")
    return rows[row_id]


def fusion_name(row):
    """What tells a row of the table of fusions from the others."""
    return row.name.replace("ResNet-8, ", "")


def row_config(root, row, protocol="paper", overrides=()):
    """The :class:`~openaff.training.config.Config` that trains a row.

    ``paper`` is the published recipe; ``reduced`` one that two CPU cores can finish, for the rows
    of one table: width m = 1, 10 epochs.

    Raises
    ------
    UserError
        A row whose network or recipe is not here, or that has no reduced form.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol must be {' or '.join(PROTOCOLS)}, not {protocol!r}")
    if row.model is None:
        raise UserError(f"{row.id} cannot be trained: {row.note or 'its network is not here'}")
    settings = [f"model.name={row.model}"]
    if protocol == "reduced":
        if not row.run.startswith(REDUCED_TABLE + "."):
            raise UserError(f"{row.id} has no reduced form: only the table {REDUCED_TABLE} has")
        path = REDUCED_RECIPE
    else:
        if row.config is None:
            raise UserError(f"{row.id} cannot be trained: {row.note or 'its recipe is not known'}")
        path = row.config
        settings += [f"model.options.{key}={json.dumps(row.options[key])}" for key in row.options]
    return load_config(pathlib.Path(root, path), settings + list(overrides))


def starting_weights(root, tables, row, folder):
    """The file in ``folder``, a finished run of the row that ``row`` continues, to start from.

    Raises
    ------
    UserError
        No finished run of that row.
    """
    earlier, _ = find_row(tables, row.start_from)
    folder = pathlib.Path(folder).resolve()
    try:
        theirs = load_config(folder / "config.yaml")
        expected = dataclasses.replace(row_config(root, earlier), seed=theirs.seed)
        expected.start_from = theirs.start_from if earlier.start_from else None
        if not same_run(theirs, expected) or bool(theirs.start_from) != bool(earlier.start_from):
            raise UserError("it is of another configuration")
        _finished(folder, tables, earlier, "paper")
    except UserError as error:
        raise UserError(
            f"--start-from must be a run of {earlier.id}, which {row.id} continues: {error}"
        ) from None
    return folder / "best.params"


def same_run(theirs, ours):
    """Whether two configurations are of the same run, but for where its data are."""
    return _but_whereabouts(theirs) == _but_whereabouts(ours)


def _but_whereabouts(config):
    values = dataclasses.asdict(config)
    values["data"].update(dict.fromkeys(WHEREABOUTS))
    return values


def result_path(folder, row, protocol, seed):
    """Where below ``folder`` a result of ``row`` stands."""
    return pathlib.Path(folder) / protocol / f"{row.model}-{row.run}-seed{seed}.json"


def record(folder, run, tables, row, protocol):
    """Copy a finished run's result below ``folder``, as the result of ``row``; the file's path.

    Raises
    ------
    UserError
        The run has not finished, or is of another network, data set or number of devices; or
        there is another run's result already.
    """
    result = _finished(pathlib.Path(run), tables, row, protocol)
    path = result_path(folder, row, protocol, result["seed"])
    try:
        same = json.loads(path.read_text())["curve"] == result["curve"]
    except FileNotFoundError:
        same = True
    except _UNUSABLE:
        same = False
    if not same:
        raise UserError(f"{path} is another run's result: name another folder, --results DIR")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def _finished(run, tables, row, protocol):
    """What a finished run's files say, checked to be of this row."""
    try:
        result = json.loads((run / "result.json").read_text())
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        curve = [{key: each[key] for key in CURVE} for each in metrics]
        result = {"row": row.run, "protocol_name": protocol, **result, "curve": curve}
        _check_result(tables, result)
        # Paths of the machine that ran it say nothing to others.
        result["command"] = shlex.join(map(_without_path, shlex.split(result["command"])))
        return result
    except _UNUSABLE as error:
        raise UserError(f"{run} is no finished run of {row.id}: {_reason(error)}") from None


def _without_path(argument):
    key, equals, value = argument.rpartition("=")
    return key + equals + (pathlib.Path(value).name if value.startswith("/") else value)


def read_results(folder, tables):
    """(row id, protocol) -> the results that runs wrote, by seed.

    Raises
    ------
    UserError
        No such folder, a file that is no result of these tables, or a seed that stands twice.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder of results {folder}")
    if any(folder.glob("*.json")):
        raise UserError(f"{folder} holds results of one protocol: name the folder above it")
    found = {}
    for path in sorted(folder.glob("*/*.json")):
        try:
            result = json.loads(path.read_text())
            _check_result(tables, result)
            runs = found.setdefault((result["row"], result["protocol_name"]), {})
            if result["seed"] in runs:
                raise ValueError(f"seed {result['seed']} of {result['row']} stands twice")
            runs[result["seed"]] = result
        except _UNUSABLE as error:
            raise UserError(f"{path} is no result of ours: {_reason(error)}") from None
    return {key: [runs[seed] for seed in sorted(runs)] for key, runs in found.items()}


def _check_result(tables, result):
    row, table = find_row(tables, result["row"])
    for key, value in (("model", row.model), ("dataset", table.dataset), ("row", row.run)):
        if result[key] != value:
            raise ValueError(f"{key} is {result[key]!r}, of the row it is {value!r}")
    if result["protocol_name"] not in PROTOCOLS:
        raise ValueError(f"there is no protocol {result['protocol_name']!r}")
    if len(result["devices"]) * result["workers"] != row.devices:
        raise ValueError(f"it ran on {result['devices']}, of the row it is {row.devices} devices")
    fine = DATASETS["cifar100"].granularity("fine").words
    labels = row.labels if result["protocol_name"] == "paper" else fine
    if labels in WORDS and result["labels"] != labels:
        raise ValueError(f"labels are {result['labels']!r}, of the row they are {labels!r}")
    for key, kind in (
        ("seed", int),
        ("trainable_parameters", int),
        ("labels", str),
        ("command", str),
    ):
        if type(result[key]) is not kind:
            raise ValueError(f"{key} cannot be {result[key]!r}")
    if not result["curve"]:
        raise ValueError("its curve is empty")
    for key, place in [("last_accuracy", result), ("best_accuracy", result)] + [
        ("test_accuracy", point) for point in result["curve"]
    ]:
        value = place[key]
        if type(value) not in (int, float) or not 0 <= value <= 1:  # nan is not, either
            raise ValueError(f"{key} is no share of 1: {value!r}")


def _reason(error):
    return f"it has no {error}" if type(error) is KeyError else one_line(error)


def ours(results, metric):
    """Percent of the last epoch: ``"36.7"``, of several seeds ``"36.7 ± 0.3 (3 seeds)"``, or ""."""
    values = [100 * result["last_accuracy"] for result in results]
    if metric.endswith("error"):
        values = [100 - value for value in values]
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.2f} ({len(values)} seeds)"


def costs(table, row):
    """Parameters (without running statistics) and multiply-adds of the row's network, counted."""
    if row.model is None:
        return "", ""
    return _costs(row.model, table.dataset, json.dumps(row.options))


@functools.lru_cache(maxsize=None)  # the same networks stand in several tables
def _costs(model, dataset, options):
    info = DATASETS[dataset]
    net = create_model(model, num_classes=info.granularity().classes, **json.loads(options))
    cost = summarize(net, info.image_shape).total
    return f"{cost.trainable_parameters / 1e6:.2f}M", f"{cost.multiply_adds / 1e9:.3f}G"


def describe(row, table):
    """A row of the list: its id, and the command or why there is none."""
    if row.model is None:
        return f"{row.id}: {row.note or 'the network is not here'}"
    if row.config is None:
        return f"{row.id}: {row.note or 'the recipe is not known'}"
    start = f" --start-from runs/{row.start_from}" if row.start_from else ""
    return (
        f"{_command(row)} --out runs/{row.run}{start} --devices {gpus(row.devices)} {_data(table)}"
    )


def gpus(count):
    """The first GPUs, as ``--devices`` takes them."""
    return "gpu:" + ",".join(map(str, range(count)))


def describe_reduced(row, table, seed):
    """The command of a row's run by the reduced protocol."""
    key = row.id.rpartition(".")[2]
    options = f"--protocol reduced --seed {seed} --out runs/reduced/{key}-{seed}"
    options += " --results runs/results"  # results/ has this one
    return f"{_command(row)} {options} {_data(table)}"


def _command(row):
    return f"python scripts/reproduce_tables.py --row {row.id} --run"


def _data(table):
    return (
        "data.download=true" if "download" in DATASETS[table.dataset].settings else "data.root=DIR"
    )
