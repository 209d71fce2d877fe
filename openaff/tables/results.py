"""Our results: files that finished runs wrote, each checked to be of its row."""

import dataclasses
import pathlib
import shlex
import statistics

from ..data import DATASETS
from ..models.factory import fusion_of
from ..training.config import load_config
from ..training.curves import check_epoch
from ..utils.errors import UserError
from ..utils.files import write_json
from ..utils.json_files import check_kind, read_json, read_json_lines
from .catalog import UNUSABLE, reason
from .recipes import PROTOCOLS, row_config, same_run

_KIND = {
    "row": str,
    "protocol_name": str,
    "model": str,
    "fusion?": str,
    "options": {str: object},
    "dataset": str,
    "labels": str,
    "seed": int,
    "trainable_parameters": int,
    "devices": [str],
    "workers": int,
    "command": str,
    "training_images?": int,
    "curve": [{"epoch": int}],
}


def result_path(folder, row, protocol, seed):
    """Where below ``folder`` a result of ``row`` stands."""
    return pathlib.Path(folder) / protocol / f"{row.model}-{row.run}-seed{seed}.json"


def record(folder, run, catalog, row, protocol):
    """Copy a finished run's result below ``folder``, as the result of ``row``; the file's path.

    Raises
    ------
    UserError
        The run has not finished, or is of another network, data set or number of devices; or
        there is another run's result already.
    """
    result = _finished(pathlib.Path(run), catalog, row, protocol)
    path = result_path(folder, row, protocol, result["seed"])
    try:
        same = read_json(path)["curve"] == result["curve"]
    except FileNotFoundError:
        same = True
    except UNUSABLE:
        same = False
    if not same:
        raise UserError(f"{path} is another run's result: name another folder, --results DIR")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def _finished(run, catalog, row, protocol):
    """What a finished run's files say, checked to be of this row."""
    try:
        result = read_json(run / "result.json", {str: object})
        metrics = read_json_lines(run / "metrics.jsonl", {str: object})
        metric = row.figure.metric
        keys = ["epoch"] + [
            f"{part}_{key}" for part in ("train", "test") for key in ("loss", metric)
        ]
        curve = [{key: each[key] for key in keys} for each in metrics]
        result = {"row": row.run, "protocol_name": protocol, **result, "curve": curve}
        _check(catalog, result)
        # Paths of the machine that ran it say nothing to others.
        for key in ("command", "begun_by"):
            if key in result:
                result[key] = shlex.join(map(_without_path, shlex.split(result[key])))
        return result
    except UNUSABLE as error:
        raise UserError(f"{run} is no finished run of {row.id}: {reason(error)}") from None


def _without_path(argument):
    key, equals, value = argument.rpartition("=")
    return key + equals + (pathlib.Path(value).name if value.startswith("/") else value)


def starting_weights(catalog, row, folder):
    """The file in ``folder``, a finished run of the row that ``row`` continues, to start from.

    Raises
    ------
    UserError
        No finished run of that row.
    """
    earlier = catalog.row(row.start_from)
    folder = pathlib.Path(folder).resolve()
    try:
        theirs = load_config(folder / "config.yaml")
        expected = dataclasses.replace(row_config(earlier), seed=theirs.seed)
        expected.start_from = theirs.start_from if earlier.start_from else None
        if not same_run(theirs, expected) or bool(theirs.start_from) != bool(earlier.start_from):
            raise UserError("it is of another configuration")
        _finished(folder, catalog, earlier, "paper")
    except UserError as error:
        raise UserError(
            f"--start-from must be a run of {earlier.id}, which {row.id} continues: {error}"
        ) from None
    return folder / "best.params"


def read_results(folder, catalog):
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
            result = read_json(path)
            _check(catalog, result)
            runs = found.setdefault((result["row"], result["protocol_name"]), {})
            if result["seed"] in runs:
                raise ValueError(f"seed {result['seed']} of {result['row']} stands twice")
            runs[result["seed"]] = result
        except UNUSABLE as error:
            raise UserError(f"{path} is no result of ours: {reason(error)}") from None
    return {key: [runs[seed] for seed in sorted(runs)] for key, runs in found.items()}


def _check(catalog, result):
    check_kind(result, _KIND)
    row, protocol = catalog.row(result["row"]), result["protocol_name"]
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol!r}")
    config = row_config(row, protocol)
    labels = DATASETS[config.data.name].granularity(config.data.labels)
    expected = {"row": row.run, "model": row.model, "options": config.model.options}
    expected["dataset"] = config.data.name
    if "fusion" in result:  # older files do not say it
        expected["fusion"] = fusion_of(row.model, config.model.options)
    if labels.classes is not None:  # otherwise the words depend on the files
        expected["labels"] = labels.words
    for key, value in expected.items():
        if result[key] != value:
            raise ValueError(f"{key} is {result[key]!r}, of the row it is {value!r}")
    if len(result["devices"]) * result["workers"] != row.devices:
        raise ValueError(f"it ran on {result['devices']}, of the row it is {row.devices} devices")
    if not result["curve"]:
        raise ValueError("its curve is empty")
    for point in result["curve"]:
        check_epoch(point["epoch"])
    metric = row.figure.metric
    for key, place in [(f"last_{metric}", result), (f"best_{metric}", result)] + [
        (f"test_{metric}", point) for point in result["curve"]
    ]:
        value = place[key]
        if type(value) not in (int, float) or not 0 <= value <= 1:  # nan is not, either
            raise ValueError(f"{key} is no fraction of 1: {value!r}")


def mean(figure, results, which="last"):
    """The figure of several seeds, in percent."""
    return statistics.mean(figure.percent(result, which) for result in results)


def ours(figure, results):
    """Percent of the last epoch: ``"36.70"``, of seeds ``"36.70 ± 0.30 (3 seeds)"``, or ""."""
    if not results:
        return ""
    values = [figure.percent(result) for result in results]
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(figure, results):.2f} ± {statistics.stdev(values):.2f} ({len(values)} seeds)"
