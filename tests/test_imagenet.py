"""Photographs from records and from folders: reading, batches, training, evaluation."""

import json
import os
import shutil
import struct

import mxnet as mx
import numpy as np
import pytest
from helpers import initialized
from photo_files import COLOURS, write_folder
from PIL import Image
from sklearn.datasets import load_sample_images

from openaff import UserError, create_model
from openaff.data import DataConfig, load_dataset
from openaff.data.batches import test_batches as batches_to_test
from openaff.data.batches import training_batches
from openaff.data.image_folder import MEAN, STD, CenterCrop
from openaff.data.packing import folder_items, pack
from openaff.data.records import RecordSet
from openaff.data.transforms import ColorJitter, PCANoise
from openaff.tasks import load_task
from openaff.tasks.classification import TenCrop, ten_crops
from openaff.tasks.evaluation import evaluate_network, write_confusion, write_per_class
from openaff.training.config import load_config
from openaff.training.session import resume, train


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with train/ and val/ class folders, and one with the same as records."""
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 8), ("val", 3)):
        write_folder(folder / "folders" / split, count)
        classes, items = folder_items(folder / "folders" / split)
        pack(split, classes, items, folder / "records")
    return folder


def dataset(root, name="images", **settings):
    return load_dataset(DataConfig(name=name, root=str(root), image_size=32, **settings))


def of_test(data, batch_size, **options):
    batches = list(batches_to_test(data, batch_size, **options).epoch())
    images, labels = (np.concatenate([each.asnumpy() for each in part]) for part in zip(*batches))
    return images, labels, [len(batch) for batch, _ in batches]


def test_records_and_folders_give_the_same_tensors(photos):
    one, two = (of_test(dataset(photos / kind), 4) for kind in ("folders", "records"))
    assert one[1].tolist() == two[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert one[2] == two[2] == [4, 4, 1]  # the last batch counts with its own size
    np.testing.assert_array_equal(one[0], two[0])


@pytest.mark.parametrize("size", [96, 224])
def test_mxnets_reader_gives_the_same_tensors(tmp_path, size):
    """Of scikit-learn's two photographs, resized and cropped at the centre, to JPEG decoding."""
    for index, image in enumerate(load_sample_images().images):
        (tmp_path / "val" / str(index)).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "val" / str(index) / "photo.jpg", quality=95)
    classes, items = folder_items(tmp_path / "val")
    pack("val", classes, items, tmp_path)
    ours, _, _ = of_test(
        load_dataset(DataConfig(name="images", root=str(tmp_path), image_size=size)), 2
    )
    scaling = {f"mean_{c}": 255 * m for c, m in zip("rgb", MEAN)}
    scaling.update({f"std_{c}": 255 * s for c, s in zip("rgb", STD)})
    reader = mx.io.ImageRecordIter(
        path_imgrec=str(tmp_path / "val.rec"),
        data_shape=(3, size, size),
        batch_size=2,
        resize=round(size / 0.875),
        verbose=False,
        **scaling,
    )
    theirs = reader.next().data[0].asnumpy()
    levels = np.abs(ours - theirs) * 255 * np.array(STD).reshape(3, 1, 1)
    assert levels.mean() < 1 and np.percentile(levels, 99) < 10


def test_scaling_is_the_published_one(photos):
    images, labels, _ = of_test(dataset(photos / "records"), 9)
    pixels = (images * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1))) * 255
    for image, label in zip(pixels, labels):
        colour = list(COLOURS.values())[int(label)]
        assert np.argmax(image.mean(axis=(1, 2))) == np.argmax(colour)
        assert 0 <= image.min() + 1 and image.max() <= 256


@pytest.mark.parametrize("kind", ["folders", "records"])
def test_training_batches_follow_from_seed_and_epoch(photos, kind):
    config = DataConfig(name="images", batch_size=5, jitter=0.4, pca_noise=0.1, mixup_alpha=0.2)
    data = dataset(photos / kind)

    def epoch(number=1, seed=0, start=0, mixing=True):
        batches = training_batches(data, config, 5, seed)
        assert len(batches) == 4  # of 24 images; the rest is left out
        return [
            (images.asnumpy(), labels.asnumpy())
            for images, labels in batches.epoch(number, start, mixing)
        ]

    first = epoch()
    assert len(first) == 4 and first[0][0].shape == (5, 3, 32, 32)
    for (images, labels), (again, labels_again) in zip(first[2:], epoch(start=2)):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)
    for end in (epoch(start=4), epoch(start=5)):
        assert end == []
    for other in (epoch(2), epoch(seed=1)):
        assert np.abs(other[0][0] - first[0][0]).max() > 0.1
    assert first[0][1].shape == (5, 3)
    np.testing.assert_allclose(first[0][1].sum(axis=1), 1, rtol=1e-5)
    plain = epoch(mixing=False)
    assert plain[0][1].shape == (5,)
    seen = np.concatenate([labels for _, labels in plain]).astype(int)
    assert min(np.bincount(seen, minlength=3)) >= 4  # shuffled, and each image at most once


@pytest.mark.parametrize("kind", ["folders", "records"])
def test_parts_of_several_processes_are_the_whole(photos, kind):
    data = dataset(photos / kind)
    whole, labels, _ = of_test(data, 4)
    parts = [of_test(data, 2, shard=(rank, 2)) for rank in (0, 1)]
    assert sum(len(part[1]) for part in parts) == len(labels)

    def keys(images):
        return sorted(images.reshape(len(images), -1).sum(axis=1).round(2).tolist())

    assert keys(np.concatenate([part[0] for part in parts])) == pytest.approx(keys(whole), abs=0.05)
    config = DataConfig(name="images")
    lengths = {len(training_batches(data, config, 5, shard=(rank, 2))) for rank in (0, 1)}
    assert lengths == {2}


def test_every_image_of_an_epoch_gets_its_own_augmentation(tmp_path):
    (tmp_path / "train" / "one").mkdir(parents=True)
    (photo, _) = load_sample_images().images
    for index in range(16):
        Image.fromarray(photo).save(tmp_path / "train" / "one" / f"{index}.jpg")
    classes, items = folder_items(tmp_path / "train")
    pack("train", classes, items, tmp_path)
    data = load_dataset(DataConfig(name="images", root=str(tmp_path), image_size=32))
    seen = set()
    for rank in (0, 1):
        for workers in (1, 2):
            config = DataConfig(name="images", workers=workers)
            batches = training_batches(data, config, 4, shard=(rank, 2))
            images = np.concatenate([batch.asnumpy() for batch, _ in batches.epoch()])
            seen.add(images.tobytes())
            assert len({image.tobytes() for image in images}) == len(images) == 8


def test_each_of_several_processes_makes_as_many_batches(photos):
    config = DataConfig(name="images")
    data = dataset(photos / "records")  # 24 training images
    for count, batch_size, expected in ((5, 2, 2), (3, 4, 2)):
        parts = [training_batches(data, config, batch_size, shard=(r, count)) for r in range(count)]
        assert {len(part) for part in parts} == {expected}
        assert all(len(list(part.epoch())) == expected for part in parts)
    with pytest.raises(UserError, match="do not fill one batch of 4 for each of 7 processes"):
        training_batches(data, config, 4, shard=(6, 7))


def test_a_whole_run_and_its_resumption(photos, tmp_path):
    """Two epochs, and the same stopped after the first: records, their reader's threads and all."""
    overrides = ["model.name=aff_cifar_resnet8", "model.options={width_multiplier: 1}"]
    overrides += [f"data.root={photos / 'records'}", "data.image_size=32"]
    config = load_config("imagenet/smoke", overrides)
    whole = train(config, tmp_path / "whole", [mx.cpu()])
    assert whole["labels"] == "3 classes" and "random resized crop" in whole["protocol"]
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    (tmp_path / "again" / "result.json").unlink()
    again = resume(tmp_path / "again", [mx.cpu()], "previous.ckpt")
    assert again["last_accuracy"] == whole["last_accuracy"]
    one, two = (mx.nd.load(str(tmp_path / each / "last.params")) for each in ("whole", "again"))
    for name in one:
        np.testing.assert_array_equal(one[name].asnumpy(), two[name].asnumpy())


def test_ten_crops_of_a_confident_mistake_have_a_finite_loss():
    ten = TenCrop(lambda crops: mx.nd.array([[150.0, 0.0]] * len(crops)), 4)
    logits = ten(mx.nd.zeros((2, 3, 5, 5))).asnumpy()
    np.testing.assert_allclose(logits, [[0, np.log(1e-12)]] * 2, atol=1e-6)


def test_the_end_of_an_epoch_of_records_decodes_nothing(photos, monkeypatch):
    config = DataConfig(name="images", batch_size=5)
    batches = training_batches(dataset(photos / "records"), config, 5, 0)
    monkeypatch.setattr(mx.io, "ImageRecordIter", None)  # which cannot be called
    assert list(batches.epoch(1, start=len(batches))) == []


def test_evaluation_of_every_class_and_by_ten_crops(photos, tmp_path):
    net = create_model("add_cifar_resnet8", num_classes=3, width_multiplier=1)
    net.initialize(mx.init.Xavier())
    data = dataset(photos / "folders", crop_ratio=1.0)
    result, meter = evaluate_network(net, data, [mx.cpu()], 4)
    confusion = meter.sums["confusion"].astype(int)
    assert confusion.sum(axis=1).tolist() == [3, 3, 3]
    assert confusion.trace() / 9 == result["accuracy"]
    task = load_task(data)
    write_per_class(tmp_path / "classes.csv", task.per_class(meter.sums))
    write_confusion(tmp_path / "confusion.csv", data.class_names, confusion)
    rows = (tmp_path / "classes.csv").read_text().splitlines()
    assert rows[0] == "class,images,correct,accuracy" and len(rows) == 4
    confusion = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0]])  # a class without images comes last
    write_per_class(tmp_path / "order.csv", task.per_class({"confusion": confusion}))
    rows = (tmp_path / "order.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ["red", "blue", "green"]
    assert (tmp_path / "confusion.csv").read_text().splitlines()[0].endswith("blue,green,red")
    ten, _ = evaluate_network(TenCrop(net, 24), data, [mx.cpu()], 4)
    images, labels, _ = of_test(data, 9)
    probabilities = sum(net(crop).softmax() for crop in ten_crops(mx.nd.array(images), 24)) / 10
    picked = probabilities.asnumpy()[np.arange(9), labels.astype(int)]
    assert ten["loss"] == pytest.approx(-np.log(picked).mean(), rel=1e-4)
    with pytest.raises(UserError, match="squares of 40 pixels do not fit into images of 32"):
        evaluate_network(TenCrop(net, 40), data, [mx.cpu()])


def test_ten_crops_on_the_command_line(photos, tmp_path, call):
    """Of squares as large as the central one of usual evaluation: 7/8 of the short side."""
    net = initialized("add_cifar_resnet8", num_classes=3, width_multiplier=1)
    net.save_parameters(str(tmp_path / "net.params"))
    words = ["evaluate", "--model", "add_cifar_resnet8", "--option", "width_multiplier=1"]
    words += ["--params", tmp_path / "net.params", "--dataset", "images", "--image-size", 28]
    words += ["--data", photos / "folders", "--ten-crop"]
    assert call(*words).out.endswith(" images/s); mean over ten crops\n")
    written = json.loads(call(*words, "--json").out)
    expected, _ = evaluate_network(
        TenCrop(net, 28), dataset(photos / "folders", crop_ratio=1.0), [mx.cpu()]
    )
    assert written["ten_crop"] == 28 and written["accuracy"] == expected["accuracy"]
    assert written["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_ten_crops_are_corners_centre_and_their_mirror_images():
    images = mx.nd.arange(6 * 5).reshape((1, 1, 6, 5))
    crops = ten_crops(images, 3)
    assert [int(crop[0, 0, 0, 0].asscalar()) for crop in crops[:5]] == [0, 2, 15, 17, 6]
    for plain, mirrored in zip(crops[:5], crops[5:]):
        np.testing.assert_array_equal(plain.asnumpy()[..., ::-1], mirrored.asnumpy())


def test_jitter_and_noise():
    rng = np.random.default_rng(0)
    images = rng.integers(60, 180, (400, 6, 6, 3), dtype="uint8")
    labels = np.arange(400)
    for transform in (ColorJitter(0.0), PCANoise(0.0)):
        same, given = transform(images, labels, rng)
        assert (same == images).all() and given is labels
    jittered, _ = ColorJitter(0.4)(images, labels, rng)
    assert jittered.dtype == np.uint8 and jittered.shape == images.shape
    ratio = jittered.mean(axis=(1, 2, 3)) / images.mean(axis=(1, 2, 3))
    assert 0.58 < ratio.min() < 0.7 and 1.3 < ratio.max() < 1.42  # brightness
    spread = jittered.std(axis=(1, 2)).mean(axis=1) / images.std(axis=(1, 2)).mean(axis=1)
    assert spread.min() < 0.5 and spread.max() > 1.4  # contrast and saturation, too
    shift = PCANoise(0.1)(images, labels, rng)[0].astype(float) - images
    assert np.ptp(shift, axis=(1, 2)).max() == 0  # one shift an image
    covariance = np.cov(shift[:, 0, 0].T)
    expected = (PCANoise.COMPONENTS * (0.1 * PCANoise.DEVIATIONS) ** 2) @ PCANoise.COMPONENTS.T
    np.testing.assert_allclose(covariance, expected, rtol=0.25, atol=1)


def test_damaged_records_are_refused(photos, tmp_path):
    for name in ("cut", "other", "disorder", "empty", "count"):
        shutil.copytree(photos / "records", tmp_path / name)
    rec = tmp_path / "cut" / "train.rec"
    rec.write_bytes(rec.read_bytes()[:-100])
    lines = (tmp_path / "other" / "train.idx").read_text().splitlines(True)
    (tmp_path / "other" / "train.idx").write_text("".join(lines[:-1]))
    (tmp_path / "disorder" / "train.idx").write_text("".join(lines[::-1]))
    (tmp_path / "empty" / "train.idx").write_text("")
    manifest = json.loads((tmp_path / "count" / "manifest.json").read_text())
    manifest["splits"]["train"]["images"] = 25
    (tmp_path / "count" / "manifest.json").write_text(json.dumps(manifest))
    for name, message in (
        ("cut", "train.rec is truncated"),
        ("other", "train.idx is not the index of train.rec: the last record"),
        ("disorder", "offsets do not increase"),
        ("empty", "train.idx is empty"),
        ("count", "has 24 images, but the manifest beside it says 25"),
    ):
        with pytest.raises(UserError, match=message):
            dataset(tmp_path / name)
    good = (photos / "records" / "val.idx").read_text()
    for content, message in (
        ("0\t0\n1\t3333\n", "is not the index of|truncated"),
        ("x" + good, "val.idx, line 1: it must be a key, a tab and an offset"),
        (good.replace("1\t", "0\t", 1), "val.idx has a key twice"),
        (good.replace("1\t", "\u0661\t", 1), "val.idx, line 2: it must be a key"),
    ):
        (tmp_path / "other" / "val.idx").write_text(content)
        with pytest.raises(UserError, match=message):
            RecordSet(tmp_path / "other" / "val.rec", CenterCrop(32, 1.0), 3)
    (tmp_path / "other" / "val.idx").unlink()
    with pytest.raises(UserError, match="cannot read .*val.rec with val.idx"):
        RecordSet(tmp_path / "other" / "val.rec", CenterCrop(32, 1.0), 3)


def test_other_wrong_input(photos, tmp_path):
    with pytest.raises(UserError, match="data.root is not set"):
        load_dataset(DataConfig(name="images"))
    with pytest.raises(UserError, match="holds neither train.rec and val.rec nor train/ and val/"):
        dataset(tmp_path)
    with pytest.raises(UserError, match="autoaugment works on class folders only"):
        dataset(photos / "records", autoaugment="imagenet")
    with pytest.raises(UserError, match="holds 3 classes, but ImageNet has 1000"):
        dataset(photos / "records", "imagenet")
    for split, classes in (("train", "ab"), ("val", "bc")):
        for name in classes:
            shutil.copytree(photos / "folders/train/red", tmp_path / split / name)
    with pytest.raises(UserError, match="val has the class 'c', but train/ does not"):
        dataset(tmp_path)
    shutil.rmtree(tmp_path / "train")
    only_val = dataset(tmp_path)
    assert only_val.train is None and len(only_val.test) == 16
    with pytest.raises(UserError, match="there are no training images"):
        training_batches(only_val, DataConfig(name="images"), 2)
    with pytest.raises(UserError, match="24 training images do not fill one batch of 32"):
        training_batches(dataset(photos / "records"), DataConfig(name="images"), 32)
    with pytest.raises(UserError, match="data.workers must be at least 1"):
        training_batches(dataset(photos / "records"), DataConfig(name="images", workers=0), 2)
    shutil.copytree(photos / "records", tmp_path / "bare")
    (tmp_path / "bare" / "manifest.json").unlink()
    with pytest.raises(UserError, match="has no manifest.json, so its classes are not known"):
        dataset(tmp_path / "bare")
    assert len(dataset(tmp_path / "bare", "imagenet").class_names) == 1000
    (tmp_path / "bare" / "manifest.json").write_text("[1]")
    with pytest.raises(UserError, match="cannot read the manifest"):
        dataset(tmp_path / "bare")


@pytest.mark.parametrize(
    "start, damage, message",
    [
        (0, bytes(200), "no frame in record 1, at byte"),
        (4, struct.pack("<I", 1 << 28), "a frame of another size in record 1"),
        (4, struct.pack("<I", 1 << 29), "no frame in record 1|a frame of another size in record 1"),
        (8, struct.pack("<I", 7), "7 labels in record 1"),
        (12, struct.pack("<f", 1e9), "the label 1e.09, and not one below 3, in record 1"),
        (12, struct.pack("<f", -1), "the label -1, and"),
        (12, struct.pack("<f", float("nan")), "the label nan, and"),
        (12, struct.pack("<f", 1.5), "the label 1.5, and"),
        (12, struct.pack("<f", 2), "its SHA-256 is not the one in manifest.json"),
        (60, bytes(200), "its SHA-256 is not the one in manifest.json"),
    ],
)
def test_damaged_records_never_reach_mxnets_reader(photos, tmp_path, start, damage, message):
    shutil.copytree(photos / "records", tmp_path / "records")
    for split in ("train", "val"):
        path = tmp_path / "records" / f"{split}.rec"
        offset = int(path.with_suffix(".idx").read_text().splitlines()[1].split("\t")[1])
        content = bytearray(path.read_bytes())
        content[offset + start : offset + start + len(damage)] = damage
        path.write_bytes(content)
    data = dataset(tmp_path / "records")
    with pytest.raises(UserError, match=f"train.rec is damaged: {message}"):
        training_batches(data, DataConfig(name="images"), 2)
    for read in (lambda: batches_to_test(data, 4), lambda: data.test.take([0], None)):
        with pytest.raises(UserError, match=f"val.rec is damaged: {message}"):
            read()


def test_the_verdict_on_records_is_kept_until_a_file_changes(photos, tmp_path, monkeypatch):
    shutil.copytree(photos / "records", tmp_path / "records")
    read, whole = [], RecordSet._read_all
    monkeypatch.setattr(
        RecordSet, "_read_all", lambda self, digest: read.append(1) or whole(self, digest)
    )
    for times in (1, 1):
        dataset(tmp_path / "records").test.verify()
        assert len(read) == times
    os.utime(tmp_path / "records" / "val.rec", ns=(0, 0))
    dataset(tmp_path / "records").test.verify()
    assert len(read) == 2
    shutil.copytree(tmp_path / "records", tmp_path / "copy")  # its verdict is of other files
    dataset(tmp_path / "copy").test.verify()
    assert len(read) == 3


def test_a_record_in_several_frames_is_whole(tmp_path):
    """RecordIO writes a content that has its magic number in it as several frames."""
    magic = struct.pack("<I", 0xCED7230A)
    writer = mx.recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "w")
    for key, content in enumerate((b"abcd" + magic + b"efgh" + magic + b"x", b"plain")):
        writer.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, key, 0, 0), content))
    writer.close()
    RecordSet(tmp_path / "a.rec", CenterCrop(32, 1.0), 2).verify()
    with pytest.raises(UserError, match="the label 1, and not one below 1, in record 1"):
        RecordSet(tmp_path / "a.rec", CenterCrop(32, 1.0), 1).verify()


def test_an_unreadable_file_stops_the_reading_and_is_named(photos, tmp_path):
    shutil.copytree(photos / "folders", tmp_path / "broken")
    (tmp_path / "broken" / "val" / "red" / "1.jpg").write_bytes(b"")
    for workers in (0, 1):
        with pytest.raises(UserError, match="red/1.jpg is empty"):
            of_test(dataset(tmp_path / "broken"), 4, workers=workers)
