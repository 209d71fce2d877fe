"""The published tables, and ours beside them."""

import dataclasses
import functools
import json
import pathlib
import re
import statistics
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import yaml

from .complexity import summarize
from .config import load_config
from .errors import UserError, suggest
from .files import write_json
from .models import create_model

PROTOCOLS = ("paper", "reduced")
REDUCED = "configs/cifar/aff_resnet8.yaml"  # the recipe; the network is the row's, at m = 1
WHEREABOUTS = ("root", "download", "workers")  # settings of data that change no result
INPUT = {"cifar10": (3, 32, 32), "cifar100": (3, 32, 32), "imagenet": (3, 224, 224)}
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}


@dataclass(frozen=True)
class Row:
    """A network's line in a table."""

    id: str
    name: str
    published: Optional[float]  # percent
    labels: Optional[str] = None  # CIFAR-100: the granularity of the published figure
    printed_parameters: Optional[str] = None
    model: Optional[str] = None  # None: a network that is not here
    options: Dict[str, Any] = field(default_factory=dict)
    config: Optional[str] = None  # the recipe of the published figure
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
        A file that is no table, or an id that stands twice.
    """
    tables, seen = {}, set()
    for path in sorted(pathlib.Path(root, "configs", "tables").glob("*.yaml")):
        try:
            values = yaml.safe_load(path.read_text())
            rows = [Row(**row) for row in values.pop("rows")]
            tables[path.stem] = Table(key=path.stem, rows=rows, **values)
        except (OSError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise UserError(f"{path} is no table: {error}") from None
        for row in rows:
            if row.id in seen:
                raise UserError(f"{path}: the id {row.id} stands twice")
            seen.add(row.id)
    return tables


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
    """The :class:`~openaff.config.Config` that trains a row.

    ``paper`` is the published recipe; ``reduced`` one that two CPU cores can finish, for CIFAR
    ResNets: width m = 1, 10 epochs.

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
        if "_cifar_resnet" not in row.model:
            raise UserError(f"{row.id} has no reduced form: only the CIFAR ResNets have")
        path = REDUCED
    else:
        if row.config is None:
            raise UserError(f"{row.id} cannot be trained: its recipe is not known")
        path = row.config
        settings += [f"model.options.{key}={json.dumps(row.options[key])}" for key in row.options]
    return load_config(pathlib.Path(root, path), settings + list(overrides))


def record(folder, run, row, protocol):
    """Copy a finished run's result below ``folder``, as the result of ``row``; the file's path.

    Raises
    ------
    UserError
        The run has not finished.
    """
    run = pathlib.Path(run)
    try:
        result = json.loads((run / "result.json").read_text())
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{run} is no finished run: {error}") from None
    path = pathlib.Path(folder) / protocol / f"{row.model}-{row.id}-seed{result['seed']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Paths of the machine that ran it say nothing to others.
    result["command"] = re.sub(r"(?<![^\s=])/\S*/", "", result["command"])
    kept = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    curve = [{key: each[key] for key in kept} for each in metrics]
    write_json(path, {"row": row.id, "protocol_name": protocol, **result, "curve": curve})
    return path


def read_results(folder):
    """(row id, protocol) -> the results that runs wrote, by seed.

    Raises
    ------
    UserError
        No such folder, or a file that is no result.
    """
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"there is no folder of results {folder}")
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*/*.json")):
        try:
            result = json.loads(path.read_text())
            float(result["last_accuracy"]), list(result["curve"])
            found.setdefault((result["row"], result["protocol_name"]), []).append(result)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no result of ours: {error}") from None
    return found


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
    net = create_model(model, num_classes=CLASSES[dataset], **json.loads(options))
    cost = summarize(net, INPUT[dataset]).total
    return f"{cost.trainable_parameters / 1e6:.2f}M", f"{cost.multiply_adds / 1e9:.3f}G"


def describe(root, row):
    """A row of the list: its id, and the command or why there is none."""
    if row.model is None:
        return f"{row.id}: {row.note or 'the network is not here'}"
    if row.config is None:
        return f"{row.id}: the recipe is not known"
    # The recipe's header has the command with the devices that its batch size is for.
    devices = re.search(r"--devices (\S+)", pathlib.Path(root, row.config).read_text()).group(1)
    return f"{_command(row)} --out runs/{row.id} --devices {devices} {_data(row)}"


def describe_reduced(row, seed):
    """The command of a row's run by the reduced protocol."""
    key = row.id.rpartition(".")[2]
    options = f"--protocol reduced --seed {seed} --out runs/reduced/{key}-{seed}"
    return f"{_command(row)} {options} {_data(row)}"


def _command(row):
    return f"python scripts/reproduce_tables.py --row {row.id} --run"


def _data(row):
    return "data.download=true" if "cifar" in row.config else "data.root=DIR"


def same_run(run, config):
    """Whether a run folder is of this very configuration, but for where its data are."""
    theirs = dataclasses.asdict(load_config(pathlib.Path(run) / "config.yaml"))
    wanted = dataclasses.asdict(config)
    for values in (theirs, wanted):
        values["data"].update(dict.fromkeys(WHEREABOUTS))
    return theirs == wanted
