"""Class folders of made-up photographs for tests, and tar files as ImageNet comes."""

import io
import tarfile

import numpy as np
from PIL import Image
from scipy.io import savemat

from openaff.data.packing import DEVKIT

COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "red": (200, 30, 20)}


def write_folder(folder, per_class=4, size=(72, 56)):
    """``folder/COLOUR/N.jpg``: smooth gradients, each class of its own colour."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.5, 1, size[0])[None, :, None] * np.linspace(0.6, 1, size[1])[:, None, None]
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = ramp * colour * rng.uniform(0.8, 1.2)
            image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
            image.save(folder / name / f"{index}.jpg", quality=95)
    return folder


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar_of(folder, path):
    with tarfile.open(path, "w") as archive:
        for each in sorted(folder.rglob("*.jpg")):
            add(archive, each.name, each.read_bytes())


def write_devkit(path, matlab=None):
    """The devkit of :func:`official_tars`; ``matlab`` is the content of its table."""
    synsets = np.array(
        [(3, "n00000000"), (1, "n00000001"), (2, "n00000002")],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")],
    )
    table = io.BytesIO()
    savemat(table, {"synsets": synsets})
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "readme.txt", np.random.default_rng(0).bytes(1 << 16))
        add(archive, DEVKIT + "meta.mat", table.getvalue() if matlab is None else matlab)
        truth = DEVKIT + "ILSVRC2012_validation_ground_truth.txt"
        add(archive, truth, b"2\n3\n1\n3\n")


def official_tars(tmp_path):
    """The three files as ImageNet comes, with three classes and made-up photographs."""
    folder = write_folder(tmp_path / "photos", per_class=2)
    with tarfile.open(tmp_path / "train.tar", "w") as outer:
        for number, name in enumerate(("blue", "green", "red")):
            tar_of(folder / name, tmp_path / "inner.tar")
            add(outer, f"n0000000{number}.tar", (tmp_path / "inner.tar").read_bytes())
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        for number, name in enumerate(("red", "blue", "green", "blue"), 1):
            content = (folder / name / "0.jpg").read_bytes()
            add(archive, f"ILSVRC2012_val_0000000{number}.JPEG", content)
    write_devkit(tmp_path / "devkit.tar.gz")
    return folder
