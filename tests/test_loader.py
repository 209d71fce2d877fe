import contextlib
import mmap
import os
import pathlib
import signal
import subprocess
import sys
import time

import mxnet as mx
import numpy as np
import pytest

from openaff import UserError
from openaff.data.base import ImageSet
from openaff.data.loader import BatchLoader
from openaff.data.mixup import Mixup
from openaff.data.prefetch import AHEAD
from openaff.data.transforms import Compose, Normalize, RandomCrop

IMAGES = ImageSet(
    np.random.RandomState(0).randint(0, 256, (23, 8, 8, 3)).astype("uint8"),
    np.arange(23, dtype="int32"),
)
PLAIN = Normalize((0.5,) * 3, (0.25,) * 3)
RANDOM = Compose([RandomCrop(2)])
SHUFFLE = Compose([])  # training batches without augmentation


@pytest.fixture(autouse=True)
def no_hanging():
    """Whatever waits forever for a worker is a failure."""

    def give_up(*_):
        raise TimeoutError("this test hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def labels(loader, epoch):
    return [batch.asnumpy().astype(int).tolist() for _, batch in loader.epoch(epoch)]


def test_evaluation_is_in_order_with_a_short_last_batch():
    loader = BatchLoader(IMAGES, 5, PLAIN)
    assert len(loader) == 5
    assert sum(labels(loader, 0), []) == list(range(23))
    images, _ = list(loader.epoch())[-1]
    np.testing.assert_array_equal(images.asnumpy(), PLAIN(IMAGES.images[20:]))


def test_training_shuffles_anew_each_epoch_and_drops_the_rest():
    loader = BatchLoader(IMAGES, 5, PLAIN, SHUFFLE, seed=3)
    first, second = labels(loader, 1), labels(loader, 2)
    assert [len(batch) for batch in first] == [5] * 4 == [5] * len(loader)
    assert first != second
    assert len(set(sum(first, []))) == 20


def test_an_epoch_follows_from_seed_and_number_alone():
    def epoch(seed, number):
        loader = BatchLoader(IMAGES, 5, PLAIN, RANDOM, seed=seed)
        return np.concatenate([images.asnumpy() for images, _ in loader.epoch(number)])

    np.testing.assert_array_equal(epoch(3, 4), epoch(3, 4))
    assert not np.array_equal(epoch(3, 4), epoch(4, 4))
    assert not np.array_equal(epoch(3, 4), epoch(3, 5))


def test_too_few_images_for_a_batch():
    with pytest.raises(UserError, match="23 training images do not fill one batch of 24"):
        BatchLoader(IMAGES, 24, PLAIN, SHUFFLE)
    assert len(BatchLoader(IMAGES, 24, PLAIN)) == 1


def epoch_arrays(loader, *args):
    return [[array.asnumpy() for array in batch] for batch in loader.epoch(*args)]


def assert_same_batches(actual, expected):
    assert len(actual) == len(expected)
    for pair, expected_pair in zip(actual, expected):
        for array, expected_array in zip(pair, expected_pair):
            np.testing.assert_array_equal(array, expected_array)


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
@pytest.mark.parametrize("train", [True, False])
def test_batches_are_the_same_for_any_number_of_workers(workers, train):
    def epochs(workers):
        loader = BatchLoader(IMAGES, 4, PLAIN, RANDOM if train else None, seed=3, workers=workers)
        return epoch_arrays(loader, 1) + epoch_arrays(loader, 2) + epoch_arrays(loader, 2, 3)

    assert_same_batches(epochs(workers), epochs(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_at_any_batch(workers):
    loader = BatchLoader(IMAGES, 5, PLAIN, RANDOM, seed=3, workers=workers)
    whole = epoch_arrays(loader, 1)
    for start in range(len(loader) + 1):
        assert_same_batches(epoch_arrays(loader, 1, start), whole[start:])


@pytest.mark.parametrize("workers", [0, 2])
def test_mixup_changes_nothing_else(workers):
    plain = BatchLoader(IMAGES, 5, PLAIN, RANDOM, workers=workers)
    mixed = BatchLoader(IMAGES, 5, PLAIN, RANDOM, mixup=Mixup(1, 23), workers=workers)
    assert_same_batches(epoch_arrays(mixed, 1, 0, False), epoch_arrays(plain, 1))
    for (images, labels), (raw, numbers) in zip(epoch_arrays(mixed, 1), epoch_arrays(plain, 1)):
        weight = labels[0, int(numbers[0])]
        assert labels.shape == (5, 23) and 0 < weight < 1
        np.testing.assert_allclose(images, weight * raw + (1 - weight) * raw[::-1], atol=1e-5)


class Unequal:
    """Images of two sizes, each with a map of its own size as target."""

    costly = False
    sizes = [(4, 6)] * 3 + [(8, 8)] * 4 + [(4, 6)] * 2

    def __len__(self):
        return len(self.sizes)

    def take(self, picked, rng):
        height, width = self.sizes[picked[0]]
        images = np.stack([np.full((height, width, 3), index, "uint8") for index in picked])
        return images, images[..., 0].astype("int32")


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_different_sizes_are_evaluated_with_maps_as_targets(workers):
    loader = BatchLoader(Unequal(), 3, Normalize((0,) * 3, (1 / 255,) * 3), workers=workers)
    batches = epoch_arrays(loader)
    assert [len(images) for images, _ in batches] == [3, 3, 1, 2] and len(loader) == 4
    seen = []
    for images, targets in batches:
        assert images.shape[2:] == targets.shape[1:]
        np.testing.assert_allclose(images[:, 0], targets, atol=1e-4)
        seen += targets[:, 0, 0].astype(int).tolist()
    assert seen == list(range(9))


def test_workers_by_default(monkeypatch):
    large = ImageSet(np.zeros((10000, 1, 1, 3), "uint8"), np.zeros(10000, "int32"))
    for cores, expected in ((1, 0), (2, 0), (4, 2), (96, 4)):
        monkeypatch.setattr("openaff.data.loader.physical_cores", lambda cores=cores: cores)
        assert BatchLoader(large, 5, PLAIN, SHUFFLE).workers == expected
        assert BatchLoader(IMAGES, 5, PLAIN, SHUFFLE).workers == 0
        assert BatchLoader(large, 5, PLAIN).workers == 0
    with pytest.raises(UserError, match="workers must be 0 or more, not -1"):
        BatchLoader(IMAGES, 5, PLAIN, workers=-1)


def test_workers_are_ahead_but_not_far():
    made = mmap.mmap(-1, 1)  # shared with the workers

    def transform(images):
        made[0] += 1
        return PLAIN(images)

    batches = BatchLoader(IMAGES, 1, transform, workers=1).epoch()
    next(batches)
    while made[0] < 1 + 1 + AHEAD:  # this process made the first; a free slot for one in use
        time.sleep(0.01)
    for _ in range(3):
        next(batches)
    while made[0] < 4 + AHEAD:
        time.sleep(0.01)
    time.sleep(0.3)  # and no further
    assert made[0] == 4 + AHEAD


def test_waiting_is_measured(monkeypatch):
    now = 0
    monkeypatch.setattr("openaff.data.loader.time.perf_counter", lambda: now)

    def transform(images):
        nonlocal now
        now += 1
        return PLAIN(images)

    loader = BatchLoader(IMAGES, 5, transform)
    for _ in range(2):  # each epoch counts anew
        for count, _ in enumerate(loader.epoch(), 1):
            now += 100  # a step
            assert loader.waited == count


def test_training_goes_on_through_forks():
    def trained(workers):
        loader = BatchLoader(IMAGES, 5, PLAIN, RANDOM, workers=workers)
        net = mx.gluon.nn.Dense(23, in_units=192)
        net.initialize(mx.init.Constant(0.01))
        net.hybridize(static_alloc=True)
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        trainer = mx.gluon.Trainer(net.collect_params(), "nag", {"learning_rate": 0.1})
        for number in range(4):
            for images, labels in loader.epoch(number):
                with mx.autograd.record():
                    losses = loss(net(images), labels)
                losses.backward()
                trainer.step(5)  # the last is still under way when the next epoch forks
        return net.weight.data().asnumpy()

    np.testing.assert_array_equal(trained(2), trained(0))


def children():
    """Processes whose parent is this one, the ended but unburied ones among them."""
    pids = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just vanished
            state_and_parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(state_and_parent[1]) == os.getpid():
                pids.add(path.parent.name)
    return pids


def test_workers_end_when_the_epoch_is_left():
    before = children()
    loader = BatchLoader(IMAGES, 1, PLAIN, workers=2)
    for _ in loader.epoch():
        assert len(children() - before) == 2
        break
    assert children() == before
    with pytest.raises(ZeroDivisionError):
        for _ in loader.epoch():
            raise ZeroDivisionError
    assert children() == before


def in_a_worker_at_batch(number, act):
    """A transform for batches of one that calls ``act`` for one batch, if in a worker."""
    here = os.getpid()

    def transform(images):
        if os.getpid() != here and np.array_equal(images[0], IMAGES.images[number]):
            act()
        return PLAIN(images)

    return transform


def fail(error):
    raise error


BEFALLS = {
    "user error": (lambda: fail(UserError("no file")), UserError, "^batch 4: no file$"),
    "bug": (
        lambda: fail(KeyError("x")),
        RuntimeError,
        r"^batch 4, in a worker:\n(.*\n)*KeyError: 'x'",
    ),
    "out of memory": (
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        UserError,
        r"worker that prefetches batch 4 died \(signal 9 \(Killed\)\); if memory ran out",
    ),
    "no memory": (
        lambda: fail(MemoryError()),
        UserError,
        r"^batch 4: out of memory in a worker; set fewer data.workers \(0: no worker processes\)$",
    ),
    "no file": (lambda: open("none/a"), UserError, "^batch 4: No such file or directory: none/a$"),
    "exit": (lambda: os._exit(3), UserError, r"prefetches batch 4 died \(exit status 3\)"),
}


@pytest.mark.parametrize("name", BEFALLS)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_befalls_a_worker_is_told_in_time(name, workers):
    act, error, message = BEFALLS[name]
    before = children()
    loader = BatchLoader(IMAGES, 1, in_a_worker_at_batch(4, act), workers=workers)
    seen = []
    with pytest.raises(error, match=message):
        for _, label in loader.epoch():
            seen.append(int(label.asscalar()))
            time.sleep(0.05)  # the worker has long died when this process turns to it
    assert seen == [0, 1, 2, 3]
    assert children() == before


PROGRAM = """
import os, signal, sys, time
import numpy as np
from openaff.utils.cli import run
from openaff.data.base import ImageSet
from openaff.data.loader import BatchLoader

def transform(images):
    time.sleep(0.01)
    return images.astype("float32")

images = ImageSet(np.zeros((200, 3, 8, 8), "uint8"), np.zeros(200, "int32"))
loader = BatchLoader(images, 1, transform, workers=2)
batches = loader.epoch()

def main():
    if sys.argv[1] == "is interrupted":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, as by nohup
    if sys.argv[1] == "goes on":
        # Not print, which may be at work just then: a stream refuses to be entered twice.
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"asked to stop\\n"))
    for count, _ in enumerate(batches, 1):
        if count == 5:
            print("at work", flush=True)
            if sys.argv[1] == "leaves":
                return
    print(count, "batches", flush=True)

run(main)
"""


ENDINGS = {
    "is interrupted": (130, "", "interrupted\n"),
    "goes on": (0, "asked to stop\n200 batches\n", ""),
    "leaves": (0, "", ""),
    "is killed": (-signal.SIGKILL, "", ""),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_program_ends_with_its_workers_and_without_noise(root, how):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        start_new_session=True,
    )
    try:
        assert program.stdout.readline() == "at work\n"
        if how == "is interrupted":
            os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        elif how == "goes on":
            os.killpg(program.pid, signal.SIGTERM)
        elif how == "is killed":
            program.kill()
        # Workers hold these pipes, too: they are read to the end only when all have gone.
        output, errors = program.communicate(timeout=30)
        assert (program.returncode, output, errors) == ENDINGS[how]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)  # what a failed test would leave behind
