"""The run folder: what was run, how it went, what came out."""

import csv
import errno
import fcntl
import json
import pathlib
import shutil
import sys

import tensorboardX

from ..utils.errors import UserError
from ..utils.files import atomic, sha256, write_json, write_text
from ..utils.provenance import environment, provenance
from .checkpoint import save_checkpoint
from .curves import plot_curves
from .finetuning import describe_start

WEIGHTS = ("best.params", "last.params")


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
    task : Task
        Whose metrics the run has.
    writes : bool
        False in all workers but the first: they keep the metrics, and write nothing.
    imports : sequence of str
        The user's modules.  Their files are copied to ``imports/``, for readers: nothing in a run
        folder is ever executed.

    Raises
    ------
    UserError
        The folder exists, or cannot be made.
    """

    LOCK = "lock"  # while a process writes the folder, or after it was killed

    def __init__(self, path, config_yaml, task, writes=True, imports=()):
        self._begin(path, task, writes)
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
        for name in imports:
            (self.path / "imports").mkdir(exist_ok=True)
            shutil.copy(sys.modules[name].__file__, self.path / "imports")

    def _begin(self, path, task, writes):
        self.path, self.task, self.writes = pathlib.Path(path), task, writes
        self.rows, self._events = [], None

    @classmethod
    def reopen(cls, path, task=None, writes=True):
        """The folder of a run that has not finished."""
        run = cls.__new__(cls)
        run._begin(path, task, writes)
        if not (run.path / "config.yaml").exists():
            raise UserError(f"{run.path} is not a run folder: it has no config.yaml")
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

    def checkpoint(self, engine, state):
        """Write a checkpoint, see :func:`~openaff.training.checkpoint.save_checkpoint`."""
        if self.writes:
            save_checkpoint(self.path, engine, state)

    def finish(self, result, class_names):
        """Write ``labels.txt``, ``report.md`` and, last, ``result.json``; returns the result."""
        if not self.writes:
            return None
        write_text(self.path / "labels.txt", "\n".join(class_names) + "\n")
        names = [each for each in WEIGHTS if (self.path / each).exists()]
        # Whoever reads a file of weights compares it, see openaff.utils.params.
        files = {name: sha256(self.path / name) for name in names}
        result = {**result, "files": files, **provenance()}
        write_text(self.path / "report.md", report(self.path.name, result, self.rows, self.task))
        write_json(self.path / "result.json", result)
        self._events.close()
        self._locked.close()
        (self.path / self.LOCK).unlink()
        return result


def refuse_existing(path):
    """A :class:`UserError` where a run folder, or anything of its name, is there already."""
    if pathlib.Path(path).exists():
        raise UserError(f"the run folder {path} exists: take another --out, or remove it")


def report(name, result, rows, task):
    """The run on one page, in Markdown."""
    headline = task.headline
    best, last = (result[f"{which}_{headline.key}"] for which in ("best", "last"))
    options = ", ".join(f"{key}={value}" for key, value in result["options"].items())
    facts = {
        "model": result["model"] + (f" ({options})" if options else ""),
        "parameters": f"{result['parameters']:,}, {result['trainable_parameters']:,} trainable",
        "data": f"{result['dataset']}, {result['labels']}; {result['split']}",
        "protocol": result["protocol"],
        **({"start": describe_start(result["start"])} if result.get("start") else {}),
        "seed": result["seed"],
        f"best {headline.title}": headline.show(best)
        + ", epoch {best_epoch}, {best_selection}".format(**result),
        f"last {headline.title}": headline.show(last),
        "speed": f"{result['images_per_second']:,.0f} training images/s on "
        + ", ".join(result["devices"])
        + (f" of each of {result['workers']} workers" if result["workers"] > 1 else ""),
        "versions": ", ".join(f"{key} {value}" for key, value in result["versions"].items()),
        "OMP_NUM_THREADS": result["threads"],
        "commit": result["commit"],
        "command": f"`{result['command']}`",
        "finished": result["date"],
    }
    figures = ["loss", *(metric.key for metric in task.metrics)]
    columns = ["epoch", "lr", *(f"{part}_{key}" for part in ("train", "test") for key in figures)]
    tail = rows[-5:]
    lines = [f"# {name}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    lines += ["", "![Metrics by epoch](curves.png)", "", f"Last {len(tail)} epochs:", ""]
    lines += ["| " + " | ".join(columns).replace("_", " ") + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(f"{row[key]:.4g}" for key in columns) + " |" for row in tail]
    return "\n".join(lines) + "\n"
