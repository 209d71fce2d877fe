"""Whose network it is: class names and scaling, without the data set's files."""

import pytest
from helpers import filled
from mask_files import write_masks
from photo_files import write_folder

from openaff import UserError, create_model
from openaff.commands._flags import (
    add_arguments,
    data_from_arguments,
    subject_from_arguments,
)
from openaff.data import DATASETS, DataConfig, load_dataset
from openaff.data.cifar_names import CIFAR10, COARSE, FINE
from openaff.deploy.subject import described_data, published_subject
from openaff.utils.arguments import Parser

SMALL = ("--model", "aff_cifar_resnet8", "--option", "width_multiplier=1")


@pytest.fixture(autouse=True)
def no_data_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def named(tmp_path):
    """The Subject of command-line arguments, for a network of so many outputs."""

    def make(arguments, outputs, model="aff_cifar_resnet8"):
        path = tmp_path / "any.params"
        net = filled(create_model(model, num_classes=outputs, width_multiplier=1))
        net.save_parameters(str(path))
        parser = Parser("What runs a network.")
        add_arguments(parser)
        args = parser.parse_args([*map(str, arguments), "--params", str(path)])
        return subject_from_arguments(args, data_from_arguments(args))

    return make


@pytest.mark.parametrize(
    "dataset, more, names, words",
    [
        ("cifar10", (), CIFAR10, "10 classes"),
        ("cifar100", (), FINE, "fine (100 classes)"),
        ("cifar100", ("--labels", "coarse"), COARSE, "coarse (20 superclasses)"),
    ],
)
def test_the_names_of_cifar_are_known(named, dataset, more, names, words):
    subject = named((*SMALL, "--dataset", dataset, *more), 100)
    assert (subject.class_names, subject.labels) == (names, words)
    info = DATASETS[dataset]
    assert (subject.mean, subject.std, subject.input_shape) == (info.mean, info.std, (3, 32, 32))


def test_names_are_as_many_as_the_classes_and_printable():
    for info in map(DATASETS.__getitem__, DATASETS):
        for labels in info.labels:
            if labels.names is not None:
                assert len(set(labels.names)) == len(labels.names) == labels.classes
    assert FINE[0] == "apple" and FINE[-1] == "worm" and list(FINE) == sorted(FINE)
    assert list(COARSE) == sorted(COARSE)


@pytest.mark.parametrize("name", ["digits", "scenes"])
def test_data_that_come_with_a_package_are_measured(named, name):
    data = load_dataset(DataConfig(name=name))
    model = "aff_cifar_resnet8" if name == "digits" else "aff_fpn_resnet8"
    options = ("--model", model, "--option", "width_multiplier=1", "--dataset", name)
    subject = named(options, len(data.class_names), model)
    assert subject.class_names == data.class_names and subject.labels == data.labels
    assert (tuple(subject.mean), tuple(subject.std)) == (tuple(data.mean), tuple(data.std))


def test_other_names_come_from_a_file_or_are_numbers(named, tmp_path):
    images = (*SMALL, "--dataset", "images", "--image-size", "32")
    subject = named(images, 3)
    assert (subject.class_names, subject.labels) == (("0", "1", "2"), "3 classes")
    assert subject.input_shape == (3, 32, 32) and subject.crop_ratio == 0.875
    (tmp_path / "names.txt").write_text("ant\nbee\ncod\n")
    assert named((*images, "--names", tmp_path / "names.txt"), 3).class_names == (
        "ant",
        "bee",
        "cod",
    )
    with pytest.raises(UserError, match="there are 3 class names for 4 classes"):
        named((*images, "--names", tmp_path / "names.txt"), 4)
    with pytest.raises(UserError, match="cannot read .*absent.txt: No such file"):
        named((*images, "--names", tmp_path / "absent.txt"), 4)


def test_networks_for_segmentation_need_no_files(named):
    model = ("--model", "aff_fpn_resnet8", "--option", "width_multiplier=1")
    subject = named((*model, "--dataset", "camvid", "--image-size", "90"), 11, "aff_fpn_resnet8")
    assert subject.class_names[:2] == ("sky", "building") and len(subject.class_names) == 11
    assert subject.input_shape == (3, 90, 120) and subject.short_side == 90
    assert named((*model, "--dataset", "masks"), 1, "aff_fpn_resnet8").class_names == ("0", "1")


def test_a_folder_of_ones_own_has_the_names(named, tmp_path):
    write_masks(tmp_path / "masks", 4, classes=3, names=["a", "b", "c"])
    model = ("--model", "aff_fpn_resnet8", "--option", "width_multiplier=1")
    arguments = (*model, "--dataset", "masks", "--data", tmp_path / "masks")
    assert named(arguments, 3, "aff_fpn_resnet8").class_names == ("a", "b", "c")


def test_a_published_checkpoint_has_the_names_in_use(tmp_path):
    net = create_model("aff_cifar_resnet32")
    net.initialize()
    net.save_parameters(str(tmp_path / "any.params"))
    coarse = "cifar100/AFF-ResNet-32/superclasses/0.9078"
    subject = published_subject(coarse, tmp_path / "any.params")
    assert subject.class_names == COARSE and subject.labels == "coarse (20 superclasses)"
    with pytest.raises(UserError, match="there are 100 class names for 20 classes"):
        published_subject(coarse, tmp_path / "any.params", names=FINE)


def test_the_names_of_a_run_are_settled(digits_run):
    parser = Parser("What runs a network.")
    add_arguments(parser)
    args = parser.parse_args(["--run", str(digits_run[0]), "--names", "x.txt"])
    with pytest.raises(UserError, match="--names has no effect with --run: the run settles it"):
        data_from_arguments(args)


def test_networks_without_a_classifier_are_no_subject(named):
    with pytest.raises(UserError, match="--option features_only: its maps are no predictions"):
        named((*SMALL, "--option", "features_only=true", "--dataset", "cifar10"), 10)


def test_a_folder_with_training_images_alone_gives_the_names(named, tmp_path):
    write_folder(tmp_path / "photos" / "train")
    subject = named((*SMALL, "--dataset", "images", "--data", tmp_path / "photos"), 3)
    assert len(subject.class_names) == 3 and subject.input_shape == (3, 224, 224)


def test_labels_of_an_export_that_the_data_set_has_not():
    facts = {"dataset": "cifar100", "labels": "12 classes"}
    with pytest.raises(UserError, match="labels of cifar100 are fine .*, and of this network '12"):
        described_data(facts)
    photographs = {"dataset": "images", "labels": "3 classes", "input_shape": [3, 32, 32]}
    assert described_data(photographs).crop_ratio is None  # the usual one
