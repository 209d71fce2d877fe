"""Put a run's network into the package, for ``create_model(name, pretrained=KEY)``."""

import pathlib
import shutil

import mxnet as mx

from ..data.config import without_whereabouts
from ..models.bundled import LARGEST, load_pretrained, pretrained_info, weight_files
from ..utils.configs import read_yaml
from ..utils.descriptions import WEIGHTS_FORMAT
from ..utils.errors import UserError
from ..utils.files import atomic, sha256, write_json
from .subject import run_subject


def bundle(runs, key):
    """Copy the last weights of a finished run into the package, and describe them.

    The last epoch's, since the best one was chosen on the test split.  Of several runs the best one
    counts, and the record says that it was chosen on the test split.  The record is written last:
    until then the key is unknown.

    Parameters
    ----------
    runs : list of path-like
        A run folder, or several of one configuration but for the seed.
    key : str
        What to call them, see :func:`~openaff.models.bundled.weight_files`.

    Returns
    -------
    dict
        See :func:`~openaff.models.bundled.pretrained_info`.

    Raises
    ------
    UserError
        No finished run, runs of different configurations, a damaged file, more than
        :data:`~openaff.models.bundled.LARGEST` bytes, or a key that is taken.
    """
    path, record = weight_files(key)
    if record.exists():
        raise UserError(f"there are weights {key} already: take another key, or remove {record}")
    subjects = [run_subject(run, which="last") for run in runs]
    subject, run = max(zip(subjects, runs), key=lambda pair: _figure(pair[0]))
    if len(runs) > 1:
        _refuse_different(runs, subjects)
        subject.score["selection"] += f", the best of {len(runs)} seeds on the test split"
    source = pathlib.Path(run) / "last.params"
    size = source.stat().st_size
    if size > LARGEST:
        raise UserError(
            f"{source} has {size:,} bytes, more than the {LARGEST:,} that the package takes: "
            "export the run instead"
        )
    outputs = subject.net(mx.nd.zeros((1, *subject.input_shape))).shape[1]
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as temporary:
        shutil.copyfile(source, temporary)
    write_json(
        record,
        {
            "format": WEIGHTS_FORMAT,
            **subject.facts(),
            "outputs": outputs,
            "class_names": list(subject.class_names),
            "sha256": sha256(path),
        },
    )
    try:
        load_pretrained(subject.net, key)
    except BaseException:
        record.unlink()
        path.unlink()
        raise
    return pretrained_info(key)


def _figure(subject):
    return next(value for key, value in subject.score.items() if key.startswith("last_"))


def _refuse_different(runs, subjects):
    configurations = [_configuration(*each) for each in zip(runs, subjects)]
    for run, configuration in zip(runs, configurations):
        if configuration != configurations[0]:
            raise UserError(f"{run} is of another configuration than {runs[0]}: name seeds of one")
    seeds = [each.score["seed"] for each in subjects]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"the seeds of these runs are {seeds}: name each once")


def _configuration(run, subject):
    """What makes a run's result, but for the seed; the protocol says devices and framework."""
    config = without_whereabouts(read_yaml(pathlib.Path(run) / "config.yaml"))
    return {**config, "seed": None, "protocol": subject.score["protocol"]}
