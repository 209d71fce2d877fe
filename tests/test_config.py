import pytest
import yaml

from openaff import UserError
from openaff.training.config import Config, ModelConfig, load_config, to_yaml
from openaff.training.session import train
from openaff.utils.devices import parse_devices
from openaff.utils.packaged import config_names, config_path

MINIMAL = {"model": {"name": "aff_cifar_resnet8"}, "data": {"name": "digits"}, "epochs": 2}


@pytest.fixture
def write(tmp_path):
    def write(values=None, **more):
        path = tmp_path / "config.yaml"
        text = values if isinstance(values, str) else yaml.safe_dump(dict(MINIMAL, **more))
        path.write_text(text)
        return path

    return write


def test_defaults_file_and_overrides_in_this_order(write):
    config = load_config(
        write(optimizer={"lr": 0.3}), ["optimizer.lr=0.4", "model.options.width_multiplier=1"]
    )
    assert isinstance(config, Config)
    assert config.optimizer.describe() == "NAG, lr 0.4, momentum 0.9, weight decay 0.0001"
    assert config.model.options == {"width_multiplier": 1}


def test_to_yaml_reads_back_equal(write, tmp_path):
    config = load_config(write(schedule={"name": "step", "milestones": [1]}))
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["epoch=3"], "unknown key 'epoch'; did you mean 'epochs'"),
        (["schedule.epochs=3"], "unknown key 'schedule.epochs'; did you mean 'epochs'"),
        (["lr=3"], "unknown key 'lr'; did you mean 'optimizer.lr'"),
        (["data..root=3"], r"unknown key 'data'.*\(known: data.name, data.root"),
        (["optimizer.lr.x=3"], "optimizer.lr: .*could not be converted to Float"),
        (["model.batch_size=3"], "did you mean 'data.batch_size'"),
        (["optimizer.lrr=3"], "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'"),
        (["epochs=many"], "epochs: .*many.*could not be converted to Integer"),
        (["data.flip=perhaps"], "data.flip: .*perhaps"),
        (["epochs=0"], "epochs must be at least 1"),
        (["optimizer.lr=-1"], "optimizer.lr must be positive"),
        (["optimizer.momentum=1"], r"optimizer.momentum must be in \[0, 1\)"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay must not be negative"),
        (["data.batch_size=0"], "data.batch_size must be at least 1"),
        (["data.crop_padding=-1"], "data.crop_padding must not be negative"),
        (["seed=-1"], "seed must be in"),
        (["schedule.warmup=2"], "schedule.warmup: 2 lies outside a run of 2 epochs"),
        (["schedule.warmup=-1"], "schedule.warmup must not be negative"),
        (["schedule.unit=days"], "schedule.unit must be one of epochs, steps"),
        (["schedule.name=steps"], "schedule.name must be one of cosine, step"),
        (["schedule.milestones=[1]"], "schedule.milestones has no effect on a cosine"),
        (["schedule.factor=0.1"], "schedule.factor has no effect on a cosine"),
        (["schedule.name=step"], "milestones of a step schedule must be increasing"),
        (["schedule.name=step", "schedule.milestones=[1,1]"], "must be increasing"),
        (
            ["schedule.name=step", "schedule.milestones=[5]"],
            "milestones: 5 lies outside a run of 2 epochs",
        ),
        (["data.labels=fine"], "data.labels has no effect on digits, only on cifar100"),
        (["model.options.num_classes=3"], "model.options.num_classes cannot be set"),
        (["schedule.power=2"], "schedule.power has no effect on a cosine"),
        (["schedule.name=polynomial", "schedule.factor=0.1"], "no effect on a polynomial"),
        (["schedule.name=polynomial", "schedule.power=0"], "schedule.power must be positive"),
        (["data.mixup_alpha=-1"], "data.mixup_alpha must not be negative"),
        (["data.workers=-1"], "data.workers must not be negative"),
        (["data.mixup_alpha=1e-10"], "data.mixup_alpha must be 0, or in .0.001, 1000."),
        (["data.workers=100000"], "data.workers must be at most [0-9]+ on this machine"),
        (["data={a: &a [*a]}"], "its aliases make more than"),
        (["data.mixup_off_epochs=1"], "no effect without data.mixup_alpha"),
        (["data.mixup_alpha=1", "data.mixup_off_epochs=2"], "mixup_off_epochs must be in"),
        (["data.autoaugment=cifar"], "data.autoaugment must be"),
        (["optimizer.label_smoothing=1"], "loss.label_smoothing must be in"),
        (["optimizer.clip_gradient=0"], "optimizer.clip_gradient must be positive"),
        (["initializer=he"], "initializer must be one of"),
        (["precision=float64"], "precision must be one of float32, float16, amp"),
        (["sync_batch_norm=true", "precision=float16"], "sync_batch_norm works in float32 only"),
        (["kvstore=dist"], "kvstore must be one of dist_sync, dist_device_sync"),
        (["distillation.weight=0.5"], "distillation.weight has no effect without"),
        (["distillation.options.reduction=4"], "distillation.options has no effect without"),
        (["distillation.teacher=add_cifar_resnet8"], "distillation.params is needed"),
        (
            ["distillation.teacher=a", "distillation.params=b", "distillation.weight=0"],
            "distillation.weight must be in",
        ),
        (
            ["distillation.teacher=a", "distillation.params=b", "distillation.temperature=0"],
            "distillation.temperature must be positive",
        ),
        (["checkpoint_steps=0"], "checkpoint_steps must be at least 1"),
        (["model.options.features_only=true"], "features_only cannot be set"),
        (["optimizer.lr=inf"], "optimizer.lr must be finite"),
        (
            ["optimizer.no_wd=true", "optimizer.weight_decay=0"],
            "optimizer.no_wd has no effect without weight_decay",
        ),
        (["schedule.unit=steps"], "schedule.unit steps has no effect without warmup or milestones"),
        (["optimizer.lr=nan"], "optimizer.lr must be finite"),
        (["schedule.name=step", "schedule.milestones=[.nan]"], "milestones must be finite"),
        (["schedule.name=step", "schedule.milestones=[[1]]"], "schedule.milestones"),
        (["schedule.name=step", "schedule.milestones=[1]", "schedule.factor=2"], "in .0, 1."),
        (
            ["schedule.name=step", "schedule.milestones=[1]", "schedule.warmup=1"],
            "must come after the warm-up",
        ),
        (
            ["data.root=x"],
            "data.root has no effect on digits, only on cifar10, cifar100, imagenet, images",
        ),
        (["data.name=cifar1000"], "data.name must be one of digits, cifar10, cifar100"),
        (["data.jitter=0.4"], "data.jitter has no effect on digits, only on imagenet, images"),
        (["data.name=images", "data.jitter=1"], "data.jitter must be less than 1"),
        (["data.name=images", "data.crop_ratio=1.5"], "data.crop_ratio must be in"),
        (["data.name=images", "data.crop_ratio=0"], "data.crop_ratio must be in"),
        (["data.name=images", "data.crop_ratio=1e-9"], "data.crop_ratio must be in .0.001, 1."),
        (["data.name=images", "data.image_size=40000"], "image_size must be 1 to 32,768 pixels"),
        (["data.crop_padding=2000"], "data.crop_padding must be at most 1024 pixels"),
        (["start_from=''"], "start_from must name a run, a file or a published network"),
        (
            ["distillation.weight=1", "loss.label_smoothing=0.1"]
            + ["distillation.teacher=aff_cifar_resnet8", "distillation.params=x"],
            "loss.label_smoothing has no effect with distillation.weight=1, which leaves the lab",
        ),
        (["data=[1]"], r"data is a section of settings, such as data.name, not \[1\]"),
        (
            ["optimizer=nag"],
            "optimizer is a section of settings, such as optimizer.name, not 'nag'",
        ),
        (["schedule.name=step", "schedule.milestones={a: 1}"], "Cannot merge"),
        (["distillation.options.name=x"], "distillation.options.name cannot be set"),
        (
            ["data.name=images", "data.crop_padding=4"],
            "data.crop_padding has no effect on images, only on digits",
        ),
        (["epochs"], "'epochs' is not an override: write key=value"),
        (["--epochs=3"], "'--epochs=3' is not an override"),
    ],
)
def test_errors_name_key_and_remedy(write, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        load_config(write(), overrides)
    assert "\n" not in str(caught.value)


def aliases(line):
    """Seven lines, each with ten aliases of the one before."""
    ten = range(10)
    return "".join(line.format(n, ", ".join(f"*a{n - 1}" for _ in ten)) + "\n" for n in range(1, 8))


NESTED, MERGED = aliases("a{0}: &a{0} [{1}]"), aliases("a{0}: &a{0} {{<<: [{1}]}}")


@pytest.mark.parametrize(
    "text, message",
    [
        ("epochs: [1", "line 1: not YAML"),
        ("seed: 2020-13-45", "not YAML: "),
        ("seed: \0", "not YAML: unacceptable character #x0000"),
        ("- 1", "a config is a mapping"),
        ("a0: &a0 [1]\n" + NESTED, "not YAML: its aliases make more than 100,000 values"),
        ("a0: &a0 {b: 1}\n" + MERGED, "not YAML: its aliases make more than 100,000 values"),
        ("epochs: 1\nseed: 1\nepochs: 2", "line 3: not YAML: the key 'epochs' is there twice"),
        ("data: {name: digits, name: digits}", "line 1: not YAML: the key 'name' is there twice"),
        ("epochs: &a [*a]", "not YAML: its aliases make more than 100,000 values"),
        ("", "a config is a mapping"),
        ("data: {name: digits}\nepochs: 1", "model.name is not set"),
        ("epochs: 1\nmodel: 3", "model is a section of settings, such as model.name, not 3"),
    ],
)
def test_unusable_files(write, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load_config(write(text))
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="there is no config .*absent.yaml'; name a YAML file, or"):
        load_config(tmp_path / "absent.yaml")


def test_every_committed_config_loads_by_its_name():
    assert len(config_names()) > 30
    for name in config_names():
        load_config(name)
        text = config_path(name).read_text()
        assert text.startswith("# ") and f"#   openaff train {name}" in text, name


@pytest.mark.parametrize("name", ["cifar/aff_resnet8", "configs/cifar/aff_resnet8.yaml"])
def test_a_config_has_a_name_and_a_file_comes_first(write, tmp_path, monkeypatch, name):
    assert load_config(name).data.name == "cifar100"
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    write().rename(path)
    monkeypatch.chdir(tmp_path)
    assert load_config(name).data.name == "digits"


@pytest.mark.parametrize(
    "name, near",
    [
        ("cifar/aff_resnet9", "'cifar/aff_resnet8' or "),
        ("configs/cifar/aff_resnet9.yaml", "'cifar/aff_resnet8' or "),
        ("aff_resnet8", "'cifar/aff_resnet8' or 'digits/aff_resnet8'"),
    ],
)
def test_near_names_of_a_config_are_suggested(name, near):
    with pytest.raises(UserError, match=f"there is no config '{name}'; did you mean {near}"):
        load_config(name)
    with pytest.raises(UserError, match="^there is no config 'tables/paper-table4'"):
        load_config("tables/paper-table4")


def test_a_dict_is_a_source_too():
    config = load_config(MINIMAL, ["epochs=3"])
    assert (config.epochs, config.data.name) == (3, "digits")
    with pytest.raises(UserError, match="config: unknown key 'epoch'; did you mean 'epochs'"):
        load_config({**MINIMAL, "epoch": 3})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda config: setattr(config, "epochs", 0), "^epochs must be at least 1"),
        (lambda config: setattr(config, "epochs", "many"), "^config: epochs: Value 'many'"),
        (lambda config: setattr(config.data, "batch_size", 0), "^data.batch_size must be at least"),
        (lambda config: setattr(config.optimizer, "lr", float("nan")), "^optimizer.lr must be fin"),
        (lambda config: setattr(config.model, "name", "???"), "^model.name is not set"),
        (
            lambda config: config.loss.update(smoothing=1),
            "^loss.smoothing is not a setting",
        ),
        (lambda config: config.imports.append("absent_module"), "no module 'absent_module'"),
    ],
)
def test_a_config_built_in_python_is_checked_by_the_same_rules(tmp_path, change, message):
    config = Config(model=ModelConfig("add_cifar_resnet8"), epochs=1)
    config.check()
    change(config)
    with pytest.raises(UserError, match=message) as caught:
        train(config, tmp_path / "run", parse_devices("cpu"))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["optimizer.name=lamb"], "optimizer.name must be one of nag, sgd, adagrad, adam"),
        (["optimizer.name=adagrad", "optimizer.momentum=0.9"], "momentum has no effect on adagrad"),
        (["optimizer.name=adam", "optimizer.beta2=1"], "optimizer.beta2 must be in"),
        (["optimizer.beta1=0.9"], "optimizer.beta1 has no effect on nag"),
        (["optimizer.name=adam", "optimizer.epsilon=0"], "optimizer.epsilon must be positive"),
    ],
)
def test_an_optimizer_takes_its_own_settings_only(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(MINIMAL, overrides)


def test_files_of_the_first_edition_are_read(write):
    config = load_config(write(optimizer={"lr": 0.1, "label_smoothing": 0.1}))
    assert config.loss == {"label_smoothing": 0.1}
    assert load_config(write(optimizer={"label_smoothing": 0.0})).loss == {}
