"""Whether the paper's Table 4 compares its fusions "given the same parameter budget".

``python -m openaff.analysis.budget`` prints the tables of ``docs/networks.md``.
"""

from ..models import create_model
from ..utils.markdown import markdown
from .complexity import count_parameters

# Rows of Table 4 by fusion.
TABLE_4 = {
    "add": "Add",
    "concat": "Concatenation",
    "ayforxplusyadd": "MS-GAU",
    "xplusayforyadd": "MS-SENet",
    "axyforxplusyadd": "MS-SA",
    "aff": "AFF",
    "iaff": "iAFF",
}
BLOCKS = (1, 2, 3, 4)
# Section 5.1.2; the MS- rows of the short-skip networks are single convolutions in the code.
BOTTLENECKS = {"ayforxplusyadd": 2, "xplusayforyadd": 2, "axyforxplusyadd": 2, "aff": 2, "iaff": 4}
INCEPTION, RESNET = "cifar_inception_resnet", "cifar_resnet"
# Title -> backbone, width m, reduction r by fusion.
SETTINGS = {
    "Inception-ResNet, m = 1, one convolution per context (the code)": (INCEPTION, 1, {}),
    "Inception-ResNet, m = 1, bottlenecks (the text)": (INCEPTION, 1, BOTTLENECKS),
    "Inception-ResNet, m = 4, one convolution per context (the code)": (INCEPTION, 4, {}),
    "Inception-ResNet, m = 4, bottlenecks (the text)": (INCEPTION, 4, BOTTLENECKS),
    "ResNet, m = 4, AFF r = 2, iAFF r = 4, MS- one convolution per context": (
        RESNET,
        4,
        {"aff": 2, "iaff": 4},
    ),
}


def parameters(backbone, width, reductions):
    """Parameters to train: fusion -> those for b = 1, 2, 3 and 4 blocks per stage.

    All blocks of a stage but its first are alike, so b = 1 and 2 are counted for all.
    """
    counts = {}
    for fusion in TABLE_4:
        options = {"width_multiplier": width, "reduction": reductions.get(fusion)}
        nets = (create_model(f"{fusion}_{backbone}{depth}", **options) for depth in (8, 14))
        first, second = (count_parameters(net)[0] for net in nets)
        counts[fusion] = [first + (b - 1) * (second - first) for b in BLOCKS]
    return counts


def spread(counts, fusions):
    """By how much the largest of some fusions' networks exceeds the smallest, in %, for each b."""
    columns = zip(*(counts[fusion] for fusion in fusions))
    return [100 * (max(column) / min(column) - 1) for column in columns]


def tables(budgets):
    """What :func:`parameters` counts, by title, as Markdown tables with their spread."""
    parts = []
    for title, counts in budgets.items():
        rows = []
        for fusion, name in TABLE_4.items():
            rows.append([f"{name}, `{fusion}`", *(f"{count:,}" for count in counts[fusion])])
        for name, left_out in (
            ("all", ()),
            ("all but Add", ["add"]),
            ("all but Add and iAFF", ["add", "iaff"]),
        ):
            kept = [fusion for fusion in TABLE_4 if fusion not in left_out]
            rows.append([f"*spread, {name}*", *(f"{each:.1f}%" for each in spread(counts, kept))])
        parts.append("\n".join(markdown([title, *(f"b = {b}" for b in BLOCKS)], rows)))
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(tables({title: parameters(*setting) for title, setting in SETTINGS.items()}))
