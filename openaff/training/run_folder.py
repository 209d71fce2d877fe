"""The run folder: what was run, how it went, what came out."""

import csv
import errno
import fcntl
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone

import matplotlib
import mxnet as mx
import numpy as np
import tensorboardX

from ..utils.errors import UserError
from ..utils.files import atomic, write_json, write_text
from .checkpoint import save_checkpoint


class Run:
    """A new folder for one run; an existing one is refused.

    ``config.yaml`` (resolved), ``environment.json``, ``metrics.jsonl`` and ``.csv``,
    ``curves.png``, TensorBoard's event files, ``best.params``, the checkpoints ``last.ckpt`` and
    ``previous.ckpt`` and, at the end, ``last.params``, ``labels.txt``, ``result.json`` and
    ``report.md``.

    Parameters
    ----------
    path : path-like
        The folder.
    config_yaml : str
        What ``config.yaml`` says.
    writes : bool
        False in all workers but the first: they keep the metrics, and write nothing.

    Raises
    ------
    UserError
        The folder exists, or cannot be made.
    """

    LOCK = "lock"  # while a process writes the folder, or after it was killed

    def __init__(self, path, config_yaml, writes=True):
        self.path, self.rows, self.writes = pathlib.Path(path), [], writes
        self._events = None
        if not writes:
            return
        refuse_existing(self.path)
        try:
            self.path.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {self.path}: {error.strerror}") from None
        self._lock()
        write_text(self.path / "config.yaml", config_yaml)
        write_json(self.path / "environment.json", environment())

    @classmethod
    def reopen(cls, path, writes=True):
        """The folder of a run that has not finished."""
        run = cls.__new__(cls)
        run.path, run.rows, run.writes, run._events = pathlib.Path(path), [], writes, None
        if not (run.path / "config.yaml").exists():
            raise UserError(f"{run.path} is no run folder: it has no config.yaml")
        if (run.path / "result.json").exists():
            raise UserError(f"the run {run.path} is finished: there is nothing to resume")
        if writes:
            run._lock()
        return run

    def _lock(self):
        """Refuse a folder that another process writes."""
        self._locked = open(self.path / self.LOCK, "w")
        try:
            fcntl.lockf(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # others: a file system without locks
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(f"another process is training in {self.path}: let it end") from None

    def rewind(self, rows):
        """Take back the metrics that a checkpoint does not know of."""
        self.rows = rows
        if self.writes:
            self._write_metrics()
            self._write_events(rows)

    def log(self, row):
        """Add an epoch's row to the metrics and redraw the curves."""
        self.rows.append(row)
        if self.writes:
            self._write_metrics()
            self._write_events([row])

    def _write_metrics(self):
        if not self.rows:
            return
        lines = "".join(json.dumps(each) + "\n" for each in self.rows)
        write_text(self.path / "metrics.jsonl", lines)
        with atomic(self.path / "metrics.csv") as temporary:
            with open(temporary, "w", newline="") as out:
                writer = csv.DictWriter(out, fieldnames=list(self.rows[0]))
                writer.writeheader()
                writer.writerows(self.rows)
        plot_curves(self.path / "curves.png", {self.path.name: self.rows})

    def _write_events(self, rows):
        """Scalars for TensorBoard, in an event file that hides later epochs of earlier files."""
        if self._events is None:
            first = rows[0]["epoch"] if rows else 1
            self._events = tensorboardX.SummaryWriter(str(self.path), purge_step=first)
        for row in rows:
            for key, value in row.items():
                if key != "epoch":
                    self._events.add_scalar(key, value, row["epoch"])
        self._events.flush()

    def save(self, name, net):
        """Write ``name.params``, whole or not at all."""
        if self.writes:
            with atomic(self.path / (name + ".params")) as temporary:
                net.save_parameters(str(temporary))

    def checkpoint(self, net, trainer, state):
        """Write a checkpoint, see :func:`~openaff.training.checkpoint.save_checkpoint`."""
        if self.writes:
            save_checkpoint(self.path, net, trainer, state)

    def finish(self, result, class_names):
        """Write ``labels.txt``, ``report.md`` and, last, ``result.json``."""
        if self.writes:
            write_text(self.path / "labels.txt", "\n".join(class_names) + "\n")
            result = dict(result, **provenance())
            write_text(self.path / "report.md", report(self.path.name, result, self.rows))
            write_json(self.path / "result.json", result)
            self._events.close()
            self._locked.close()
            (self.path / self.LOCK).unlink()


def refuse_existing(path):
    """A :class:`UserError` where a run folder, or anything of its name, is there already."""
    if pathlib.Path(path).exists():
        raise UserError(f"the run folder {path} exists: take another --out, or remove it")


def report(name, result, rows):
    """The run on one page, in Markdown."""
    options = ", ".join(f"{key}={value}" for key, value in result["options"].items())
    facts = {
        "model": result["model"] + (f" ({options})" if options else ""),
        "parameters": f"{result['parameters']:,}, {result['trainable_parameters']:,} trainable",
        "data": f"{result['dataset']}, {result['labels']}; {result['split']}",
        "protocol": result["protocol"],
        "seed": result["seed"],
        "best accuracy": "{best_accuracy:.2%}, epoch {best_epoch}, {best_selection}".format(
            **result
        ),
        "last accuracy": f"{result['last_accuracy']:.2%}",
        "speed": f"{result['images_per_second']:,.0f} training images/s on "
        + ", ".join(result["devices"])
        + (f" of each of {result['workers']} workers" if result["workers"] > 1 else ""),
        "versions": ", ".join(f"{key} {value}" for key, value in result["versions"].items()),
        "OMP_NUM_THREADS": result["threads"],
        "commit": result["commit"],
        "command": f"`{result['command']}`",
        "finished": result["date"],
    }
    columns = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    tail = rows[-5:]
    lines = [f"# {name}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    lines += ["", "![Loss and accuracy by epoch](curves.png)", "", f"Last {len(tail)} epochs:", ""]
    lines += ["| " + " | ".join(columns).replace("_", " ") + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(f"{row[key]:.4g}" for key in columns) + " |" for row in tail]
    return "\n".join(lines) + "\n"


def environment():
    """Versions and machine, for a reader who wants to repeat a run."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "mxnet": mx.__version__,
        "numpy": np.__version__,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": _threads(),
        "commit": _commit(),
    }


def provenance():
    """The part of a result file that is the same for every kind of run."""
    from .. import __version__

    return {
        "versions": {
            "openaff": __version__,
            "mxnet": mx.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "threads": _threads(),
        "commit": _commit(),
        "command": shlex.join([pathlib.Path(sys.argv[0]).name] + sys.argv[1:]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


CURVES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def read_metrics(source):
    """Metrics by epoch, of this project's runs or of others'.

    Parameters
    ----------
    source : path-like
        A run folder; a result file (``.json``) with its curve; or a ``.csv`` file whose header
        names ``epoch`` and any of ``train_loss``, ``test_loss``, ``train_accuracy`` and
        ``test_accuracy`` (shares of 1), where a cell may be blank.

    Returns
    -------
    list of dict

    Raises
    ------
    UserError
        A file that cannot be read, or holds something else.
    """
    path = pathlib.Path(source)
    path = path / "metrics.jsonl" if path.is_dir() else path
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            with open(path, newline="", encoding="utf-8-sig") as content:
                rows = [_numbers(row) for row in csv.DictReader(content, skipinitialspace=True)]
        elif kind == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        else:
            rows = json.loads(path.read_text()).get("curve")
        _check_curves(rows)
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(f"cannot read the metrics {path}: {error}") from None
    return rows


def _numbers(row):
    return {key: float(row[key]) for key in ("epoch", *CURVES) if row.get(key)}


def _check_curves(rows):
    if not rows or not any(key in row for row in rows for key in CURVES):
        raise ValueError("it has no " + ", ".join(CURVES[:-1]) + " or " + CURVES[-1])
    for row in rows:
        if "epoch" not in row:
            raise ValueError("a row has no epoch")
        for key in ("epoch", *CURVES):
            value = row.get(key, 0)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{key} {value!r} is no number")
            if key.endswith("accuracy") and not 0 <= value <= 1:
                raise ValueError(f"{key} {value:g} in epoch {row['epoch']:g} is no share of 1")


def plot_curves(path, runs):
    """Loss and accuracy by epoch, training dashed, test solid; ``runs``: name -> rows."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), constrained_layout=True)
    for axis, key, label in zip(axes, ("loss", "accuracy"), ("cross-entropy", "accuracy (%)")):
        scale = 100 if key == "accuracy" else 1
        for index, (name, rows) in enumerate(runs.items()):
            for part, line in (("train", "--"), ("test", "-")):
                known = [row for row in rows if f"{part}_{key}" in row]
                epochs = [row["epoch"] for row in known]
                values = [scale * row[f"{part}_{key}"] for row in known]
                marker = "." if len(epochs) <= 40 else ""
                # Not a formula, and not a name that matplotlib leaves out of the legend.
                shown = name.replace("$", r"\$").replace("_", " _", name.startswith("_"))
                curve = f"{shown}, {part}" if known else None
                axis.plot(epochs, values, line, color=f"C{index}", marker=marker, label=curve)
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)


def _processor():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()


def _threads():
    """Of MXNet on the CPU, where another number rounds otherwise; None: it was not set."""
    return os.environ.get("OMP_NUM_THREADS")


def _commit():
    """The checked-out commit of this source tree, with a + where it has changes."""
    folder = pathlib.Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=str(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
