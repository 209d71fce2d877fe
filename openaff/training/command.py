"""The command line of the training scripts."""

from ..tasks import METRICS
from ..utils.arguments import Parser
from ..utils.devices import parse_devices
from ..utils.errors import UserError
from ..utils.interrupt import Stopped
from .checkpoint import LAST, PREVIOUS
from .config import load_config
from .engine import Engine
from .session import resume, train


class Backend:
    """What trains: MXNet, on the devices that ``--devices`` names."""

    help = "cpu, cpu:N (N devices on the CPU) or gpu:0,1 (%(default)s)"

    def __init__(self, devices):
        self.contexts = parse_devices(devices)

    def engine(self, config):
        """What makes the engine; refuses what it cannot do."""
        return Engine


def main(description, backend=Backend):
    """Train or resume as ``sys.argv`` says, and print how it ended.

    Returns
    -------
    str
        The run folder.

    Raises
    ------
    UserError
        See :func:`~openaff.training.session.train`.
    """
    parser = Parser(description)
    parser.add_argument("--config", metavar="FILE", help="recipe, see configs/")
    parser.add_argument("--out", metavar="DIR", help="run folder to make")
    parser.add_argument("--resume", metavar="DIR", help="continue the run of this folder")
    parser.add_argument(
        "--checkpoint", metavar="NAME", help=f"of --resume's folder: {LAST} or {PREVIOUS}"
    )
    parser.add_argument("--devices", default="cpu", help=backend.help)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that differ from the file's; with --resume only some, such as epochs",
    )
    args = parser.parse_intermixed_args()
    try:
        result = _run(args, backend)
    except Stopped as stopped:
        raise Stopped(f"{stopped}; continue with --resume {args.resume or args.out}") from None
    if result:  # of several workers the first one has it
        headline = METRICS[result["headline"]]
        best, last = (headline.show(result[f"{each}_{headline.key}"]) for each in ("best", "last"))
        print(
            f"best {headline.title} {best} (epoch {result['best_epoch']}, "
            f"{result['best_selection']}), last {last}; labels: {result['labels']}"
        )
        print(f"written to {args.resume or args.out}")
    return args.resume or args.out


def _run(args, backend):
    backend = backend(args.devices)
    if args.resume:
        if args.config or args.out:
            raise UserError("--resume takes its settings from the run folder: leave others out")
        checkpoint = args.checkpoint or LAST
        return resume(args.resume, backend.contexts, checkpoint, backend.engine, args.overrides)
    if not (args.config and args.out):
        raise UserError("--config and --out are needed, or --resume")
    if args.checkpoint:
        raise UserError("--checkpoint has no effect without --resume")
    config = load_config(args.config, args.overrides)
    return train(config, args.out, backend.contexts, backend.engine)
