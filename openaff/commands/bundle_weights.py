"""Put a finished run's network into the package, as weights that need no training.

    openaff bundle-weights --run runs/reduced/NAME-seed0 --key aff_cifar_resnet8-coarse

They are those of the last epoch.  Of several runs, seeds of one configuration, the best one's are
taken: that is a choice on the test split, and the record says so.  From then on,
openaff.create_model(name, pretrained=KEY) and openaff predict --pretrained KEY load them.
A run must have finished, and the file must have at most 1,000,000 bytes.
"""

from ..deploy.bundle import bundle
from ..models.bundled import weight_files
from ..utils.arguments import Parser


def parse_args():
    parser = Parser(__doc__, "bundle-weights")
    parser.add_argument(
        "--run",
        required=True,
        nargs="+",
        action="extend",
        metavar="DIR",
        help="folder of a finished run, or of each",
    )
    parser.add_argument("--key", required=True, help="what to call the weights")
    return parser.parse_args()


def main():
    args = parse_args()
    info = bundle(args.run, args.key)
    for path in weight_files(args.key):
        print(f"written {path} ({path.stat().st_size:,} bytes)")
    words = ", ".join(f"{name} {value}" for name, value in info["score"].items())
    print(f"{info['model']} on {info['dataset']}, {info['labels']}: {words}")
