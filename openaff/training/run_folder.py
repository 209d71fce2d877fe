"""The run folder: what was run, how it went, what came out."""

import contextlib
import csv
import json
import pathlib
import shutil
import sys
import time

from ..utils.arrays import parameters, save_arrays
from ..utils.errors import UserError
from ..utils.files import (
    atomic,
    atomic_folder,
    lock,
    sha256,
    sweep,
    write_json,
    write_text,
)
from ..utils.imports import hidden
from ..utils.json_files import WrongJSON, read_json
from ..utils.labels import LABELS, write_labels
from ..utils.provenance import environment, provenance
from .checkpoint import save_checkpoint
from .curves import plot_curves, read_metrics
from .report import report

with hidden("torch"):  # which it would import to write its tensors: two seconds
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import text

WEIGHTS = ("best.params", "last.params")
BEST = "best.json"  # the row of metrics of the epoch that best.params is of


class Run:
    """The folder of one run; see :meth:`new` and :meth:`reopen`.

    ``config.yaml`` (resolved), ``environment.json``, ``metrics.jsonl`` and ``.csv``,
    ``curves.png``, TensorBoard's event files, ``best.params`` and ``best.json``, the checkpoints
    ``last.ckpt`` and ``previous.ckpt`` and, at the end, ``last.params``, ``labels.txt``,
    ``result.json`` and ``report.md``.

    Parameters
    ----------
    path : path-like
        The folder.
    task : Task
        Whose metrics the run has.
    writes : bool
        False in all workers but the first: they keep the metrics, and write nothing.
    """

    LOCK = "lock"  # while a process writes the folder, or after it was killed

    def __init__(self, path, task=None, writes=True):
        self.path, self.task, self.writes = pathlib.Path(path), task, writes
        self.rows, self._events, self._locked = [], None, None
        self.best = None  # the row of the epoch whose weights best.params holds

    @classmethod
    @contextlib.contextmanager
    def new(cls, path, config_yaml, task, writes=True, imports=()):
        """A context that gives a new run, whose folder appears when the context ends.

        In the context belongs the first checkpoint: wherever a run is killed, it either has not
        begun or can be resumed.

        Parameters
        ----------
        path, task, writes
            See :class:`Run`.
        config_yaml : str
            What ``config.yaml`` says.
        imports : sequence of str
            The user's modules, imported already.  Their files are copied to ``imports/``, for
            readers: nothing in a run folder is ever executed.

        Raises
        ------
        UserError
            The folder exists.
        OSError
            It cannot be made.
        """
        run = cls(path, task, writes)
        if not writes:
            yield run
            return
        with atomic_folder(path) as run.path:
            run._lock()
            write_text(run.path / "config.yaml", config_yaml)
            write_json(run.path / "environment.json", environment())
            for name in imports:
                _copy_module(name, run.path / "imports")
            yield run
        run.path = pathlib.Path(path)

    @classmethod
    def reopen(cls, path, task=None, writes=True, epochs=None):
        """The folder of a run that has not finished, or is to train longer, ``epochs`` in all."""
        run = cls(path, task, writes)
        if not run.path.exists():
            raise UserError(f"there is no run folder {path}: begin the run with --config and --out")
        if not (run.path / "config.yaml").exists():
            raise UserError(f"{run.path} is not a run folder: it has no config.yaml")
        if (run.path / "result.json").exists():
            done = len(read_metrics(path))
            if epochs is None or epochs <= done:
                raise UserError(
                    f"the run {path} is finished: there is nothing to resume; it trains longer "
                    f"with epochs=N, more than its {done}"
                )
        if writes:
            run._lock()
        return run

    def _lock(self):
        """Refuse a folder that another process writes; remove what a killed one left."""
        self._locked, ours = lock(self.path / self.LOCK)
        if ours is False:
            raise UserError(f"another process is training in {self.path}: let it end")
        if ours:
            sweep(self.path)

    def release(self):
        """End writing: anybody may resume the run.

        Not left to the end of this object, which lives as long as an error that came of it: when
        it goes, this process loses a lock that it took meanwhile by another one.
        """
        if self._locked:
            with contextlib.suppress(OSError):  # such as a folder that was removed
                (self.path / self.LOCK).unlink()  # still locked: no one else's
            self._locked.close()
            self._locked = None

    def change(self, config_yaml):
        """Write another ``config.yaml``, for a run that goes on: it has no result any more."""
        if self.writes:
            if (self.path / "result.json").exists():
                (self.path / "result.json").unlink()
            write_text(self.path / "config.yaml", config_yaml)

    def rewind(self, rows):
        """Take back the metrics that a checkpoint does not know of."""
        self.rows, self.best = rows, self._held(rows)
        if self.writes:
            self._write_metrics()
            self._write_events(rows)

    def _held(self, rows):
        """Which of the rows ``best.params`` is of; None if of an epoch that was taken back."""
        if not (self.path / WEIGHTS[0]).exists():
            return None
        try:
            held = read_json(self.path / BEST)
        except FileNotFoundError:  # the run of an earlier edition
            held = self._better(rows) if rows else None
        except WrongJSON:
            return None
        return held if held in rows else None

    def _better(self, rows):
        headline = self.task.headline
        return headline.best(rows, f"test_{headline.key}")

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
        """For TensorBoard, in an event file that hides later epochs of earlier files."""
        try:
            if self._events is None:
                # Not SummaryWriter, which writes in a thread: where that fails, it waits for ever.
                self._events = EventsWriter(str(self.path / "events"))
                first = rows[0]["epoch"] if rows else 1
                start = SessionLog(status=SessionLog.START)
                self._events.write_event(Event(step=first, session_log=start))
                recipe = (self.path / "config.yaml").read_text(encoding="utf-8")
                recipe = "    " + recipe.replace("\n", "\n    ")  # code, in Markdown
                self._events.write_event(Event(step=first, summary=text("recipe", recipe)))
            for row in rows:
                for key, value in row.items():
                    if key != "epoch" and value is not None:
                        event = Event(wall_time=time.time(), step=row["epoch"])
                        event.summary.value.add(tag=_tag(key), simple_value=value)
                        self._events.write_event(event)
            self._events.flush()
        except OSError as error:
            error.filename = str(self.path)
            raise

    def save_best(self, net, row):
        """Write ``best.params``, unless it is of an epoch as good as that of ``row``."""
        if self.best and self._better([self.best, row]) is self.best:
            return
        if self.writes:
            write_json(self.path / BEST, None)  # not known, if the process is killed here
        self.save("best", net)
        if self.writes:
            write_json(self.path / BEST, row)
        self.best = row

    def save(self, name, net):
        """Write ``name.params``, whole or not at all."""
        if self.writes:
            save_arrays(self.path / (name + ".params"), parameters(net))

    def checkpoint(self, engine, state):
        """Write a checkpoint, see :func:`~openaff.training.checkpoint.save_checkpoint`."""
        if self.writes:
            save_checkpoint(self.path, engine, state)

    def finish(self, result, class_names):
        """Write ``labels.txt``, ``report.md`` and, last, ``result.json``; returns the result."""
        if not self.writes:
            return None
        write_labels(self.path, class_names)
        names = [each for each in (LABELS, *WEIGHTS) if (self.path / each).exists()]
        # Whoever reads one of them compares it, see openaff.utils.params.
        files = {name: sha256(self.path / name) for name in names}
        result = {**result, "files": files, **provenance()}
        write_text(self.path / "report.md", report(self.path.name, result, self.rows, self.task))
        write_json(self.path / "result.json", result)
        self._events.close()
        return result


def _copy_module(name, folder):
    """Copy the file of an imported module: that of ``a.nets`` to ``a/nets.py``."""
    source = pathlib.Path(sys.modules[name].__file__)
    copy = folder.joinpath(*name.split("."))
    if source.stem == "__init__":
        copy = copy / "__init__"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, copy.with_suffix(source.suffix))


def _tag(key):
    """TensorBoard puts what has the same first part side by side: ``loss/train``, ``loss/test``."""
    part, _, figure = key.partition("_")
    return f"{figure}/{part}" if part in ("train", "test") else f"progress/{key}"
