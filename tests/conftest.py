"""Fixtures: one short training run on the digits, shared by all who only read its folder."""

import contextlib
import pathlib
import resource

import pytest
from helpers import fewer_images, load_command

from openaff.tables.catalog import load_tables
from openaff.training import run_folder
from openaff.training.config import load_config
from openaff.training.curves import plot_curves
from openaff.training.session import train
from openaff.utils.devices import parse_devices

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_configure(config):
    """Files in the order of their names: those with few slow tests would else come last, alone."""
    if hasattr(config.option, "loadscopereorder"):  # of pytest-xdist from 3.7 on
        config.option.loadscopereorder = False


@pytest.fixture(scope="session")
def root():
    """The source tree."""
    return ROOT


@pytest.fixture(scope="session")
def known():
    """The catalog of all tables."""
    return load_tables()


@pytest.fixture
def call(monkeypatch, capsys):
    """``call(NAME, ARGUMENTS...)``: the command in this process; what it prints, .out and .err."""

    def run(name, *arguments):
        monkeypatch.setattr("sys.argv", ["openaff", name, *map(str, arguments)])
        load_command(name.replace("-", "_")).main()
        return capsys.readouterr()

    return run


@pytest.fixture
def tables_command(known, monkeypatch):
    """The module of ``openaff tables``, with the tables that were read already."""
    command = load_command("tables")
    monkeypatch.setattr(command, "load_tables", lambda: known)
    return command


@pytest.fixture
def longest_file():
    """``with longest_file(N)``: what a full disk does to a file's bytes from N on, whoever writes.

    By the limit of this process, so that errors come from the operating system, also while a file
    is closed.  Its error is EFBIG.
    """

    @contextlib.contextmanager
    def limit(count):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture(scope="session", autouse=True)
def empty_curves():
    """Runs in this process write an empty picture of their curves: drawing takes 0.2 s an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "plot_curves", lambda path, runs: path.touch())
        yield


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """(folder, result) of one epoch of AFF-ResNet-8 on half of the digits, with its curves drawn.

    By a rate and a batch with which it finds a third of them: all of one class would hide errors.
    """
    values = ["epochs=1", "schedule.warmup=0", "optimizer.lr=0.01", "data.batch_size=16"]
    config = load_config("digits/aff_resnet8", values)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "plot_curves", plot_curves)
        fewer_images(patch, "digits", train=720, test=360)
        return folder, train(config, folder, parse_devices("cpu"))
