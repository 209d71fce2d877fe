"""A task, a data set and a network of the tests' own: a class for every pixel."""

import numpy as np
from mxnet import gluon
from mxnet.gluon import nn

from openaff.data import Dataset, ImageSet, Labels, register_dataset
from openaff.data.transforms import IGNORE
from openaff.models.factory import register_backbone
from openaff.tasks import METRICS, TASKS, Meter, Task


class PixelCrossEntropy(gluon.Block):
    """Cross-entropy (N,) of logits (N, K, H, W), the mean over pixels that count."""

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def forward(self, logits, targets, images=None):
        counts = targets != IGNORE
        loss = -logits.log_softmax(axis=1).pick(targets * counts, axis=1) * counts
        return self.scale * loss.sum(axis=(1, 2)) / counts.sum(axis=(1, 2))


class PixelMeter(Meter):
    def __init__(self):
        super().__init__(right=(), pixels=())

    def measure(self, output, target):
        right = (output.argmax(axis=1) == target).sum()
        return {"right": right, "pixels": (target != IGNORE).sum()}

    def metrics(self, images, sums):
        return {"pixel_accuracy": float(sums["right"] / sums["pixels"])}


@TASKS.register("pixels")
class Pixels(Task):
    key = "pixels"
    metrics = (METRICS["pixel_accuracy"],)
    Loss = PixelCrossEntropy

    def meter(self, detailed=False):
        return PixelMeter()

    @staticmethod
    def decode(outputs, class_names, top=5):
        return outputs.argmax(axis=1)


@register_dataset(
    "squares",
    title="squares",
    task="pixels",
    labels=(Labels("classes", 3, "3 classes"),),
    image_shape=(3, 16, 16),
    settings=("crop_padding",),
)
def load_squares(config):
    """A bright square, red or green, on noise: (48, 16, 16) maps of 0 (noise), 1 and 2."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 80, (48, 16, 16, 3), dtype="uint8")
    maps = np.zeros((48, 16, 16), "int32")
    for image, target, (y, x) in zip(images, maps, rng.integers(0, 8, (48, 2))):
        label = rng.integers(1, 3)
        image[y : y + 8, x : x + 8, label - 1] = 250
        target[y : y + 8, x : x + 8] = label
    return Dataset(
        name="squares",
        labels="3 classes",
        split="32 training and 16 test images",
        class_names=("noise", "red", "green"),
        train=ImageSet(images[:32], maps[:32]),
        test=ImageSet(images[32:], maps[32:]),
        mean=(0.2,) * 3,
        std=(0.2,) * 3,
    )


@register_backbone(
    r"pixelnet([1-9])", ["pixelnet1"], input_shape=(3, 16, 16), strides=(1,), task="pixels"
)
class PixelNet(nn.HybridBlock):
    """Three convolutions, the last but one fused with the first."""

    def __init__(self, width, fusion="add", num_classes=3, **kwargs):
        super().__init__(**kwargs)
        from openaff.fusion import fusion_factory

        channels = 8 * width
        with self.name_scope():
            self.first = nn.Conv2D(channels, 3, padding=1, in_channels=3)
            self.second = nn.Conv2D(channels, 3, padding=1, in_channels=channels)
            self.norm = nn.BatchNorm(in_channels=channels)
            self.attention = fusion_factory(fusion)(channels)
            self.output = nn.Conv2D(num_classes, 1, in_channels=channels)

    def hybrid_forward(self, F, x):
        x = F.relu(self.first(x))
        return self.output(F.relu(self.attention(self.norm(self.second(x)), x)))
