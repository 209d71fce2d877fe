"""A run on one page."""

import datetime

from ..utils.markdown import markdown
from .finetuning import describe_start


def describe_model(name, options):
    """A network's name, with its options if there are any."""
    values = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{name} ({values})" if values else name


def describe_devices(devices, workers=1):
    """Where a run trains."""
    each = f" of each of {workers} workers" if workers > 1 else ""
    return ", ".join(map(str, devices)) + each


def report(name, result, rows, task):
    """What ``report.md`` says.

    Parameters
    ----------
    name : str
        Of the run folder.
    result : dict
        What ``result.json`` says.
    rows : list of dict
        The metrics, a row an epoch.
    task : Task
        Whose metrics they are.
    """
    headline = task.headline
    best, last = (result[f"{which}_{headline.key}"] for which in ("best", "last"))
    further = {
        f"last {title}": f"{result[f'last_{key}']:.2%}"
        for key, title in task.further.items()
        if f"last_{key}" in result
    }
    facts = {
        "model": describe_model(result["model"], result["options"]),
        "parameters": f"{result['parameters']:,}, {result['trainable_parameters']:,} trainable",
        "data": f"{result['dataset']}, {result['labels']}; {result['split']}",
        "protocol": result["protocol"].replace("*", r"\*"),  # of patterns: Markdown's emphasis
        **({"start": describe_start(result["start"])} if result.get("start") else {}),
        "seed": result["seed"],
        f"best {headline.title}": headline.show(best)
        + ", epoch {best_epoch}, {best_selection}".format(**result),
        f"last {headline.title}": headline.show(last),
        **further,
        "duration": _duration(result.get("seconds")),
        "speed": f"{result['images_per_second']:,.0f} training images/s on "
        + describe_devices(result["devices"], result["workers"]),
        "processor": result.get("processor"),
        "versions": ", ".join(f"{key} {value}" for key, value in result["versions"].items()),
        "OMP_NUM_THREADS": result["threads"],
        "commit": result["commit"],
        "begun by": f"`{result['begun_by']}`" if "begun_by" in result else None,
        "command": f"`{result['command']}`",
        "finished": result["date"],
    }
    known = [[key, str(value)] for key, value in facts.items() if value is not None]
    lines = [f"# {name}", "", *markdown(["", ""], known), ""]
    lines += ["![Metrics by epoch](curves.png)", "", *_last_epochs(rows[-5:], task)]
    return "\n".join(lines) + "\n"


def _duration(seconds):
    if seconds is None:
        return None
    return f"{datetime.timedelta(seconds=round(seconds))} of training and evaluation"


def _last_epochs(rows, task):
    """The metrics of some epochs; the learning rate is that of an epoch's last step."""
    shown = {"epoch": "{:d}".format, "lr": "{:.4g}".format}
    titles = ["epoch", "last rate"]
    for part in ("train", "test"):
        shown[f"{part}_loss"] = "{:.3f}".format
        titles.append(f"{part} loss")
        for metric in task.metrics:
            shown[f"{part}_{metric.key}"] = metric.show
            titles.append(f"{part} {metric.title}")
    cells = [[show(row[key]) for key, show in shown.items()] for row in rows]
    heading = f"Last {len(rows)} epochs:" if len(rows) > 1 else "The last epoch:"
    return [heading, "", *markdown(titles, cells)]
