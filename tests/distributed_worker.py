"""A worker of test_distributed.py: some steps on its share of fixed data, parameters to a file."""

import sys

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from openaff.data.base import ImageSet
from openaff.data.loader import BatchLoader
from openaff.data.transforms import Compose
from openaff.tasks.classification import ClassificationMeter, CrossEntropy
from openaff.training.distributed import Workers
from openaff.training.engine import Engine, initialize
from openaff.training.optimizers import OptimizerConfig
from openaff.utils import cli


def train(kind, batch_size, fails=False):
    """(engine, means) after an epoch; a network without batch norm, whose statistics are local."""
    workers = Workers(kind)
    mx.random.seed(workers.rank)  # the first worker's parameters go to all
    np.random.seed(workers.rank)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=3, activation="relu"), nn.Dense(5, in_units=4 * 6 * 6))
    initialize(net, [mx.cpu()])
    engine = Engine(net, CrossEntropy(), lambda step: 0.1, OptimizerConfig(), workers=workers)
    rng = np.random.RandomState(0)
    images = ImageSet(
        rng.randint(0, 256, (50, 8, 8, 3)).astype("uint8"), rng.randint(0, 5, 50).astype("int32")
    )

    def scale(pixels):
        return pixels.transpose(0, 3, 1, 2).astype("float32") / 255

    shard = (workers.rank, workers.count)
    batches = BatchLoader(images, batch_size, scale, Compose([]), workers=0, shard=shard)
    meter = ClassificationMeter(5)
    for batch in batches.epoch():
        if fails and workers.rank == 1:
            raise RuntimeError("worker 1 gives up")
        engine.train_step(*batch, meter)
    return engine, meter.values(workers.sum)


def main():
    engine, means = train("dist_sync", 8, fails=len(sys.argv) > 2)
    odd = float(2**40 + 1 + engine.workers.rank)  # float32 has no such numbers
    total = engine.workers.sum(np.array([odd, 1 / 3])).tolist()
    assert total == [2**41 + 3, 2 / 3], total
    engine.net.save_parameters(f"{sys.argv[1]}/{engine.workers.rank}.params")
    if engine.workers.rank == 0:
        print(means["loss"], engine.step)


if __name__ == "__main__":
    cli.run(main)
