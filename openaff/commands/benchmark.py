"""Measure speed as ratios: the compared forms take turns in one run, medians count.

    openaff benchmark train
    OMP_NUM_THREADS=1 openaff benchmark tables --out measurements/speed.json

fusion  forward and backward passes of single blocks
train   training steps of whole networks
infer   inference of whole networks by different engines
data    the input pipeline against Gluon's DataLoader
photos  packing photographs, and reading them from records and folders
tables  training steps of the networks of docs/evidence.md; openaff tables --report writes what the
        file says into it

"printed" is the fusion as its equation is printed, with nn.GlobalAvgPool2D, which the head has
then, too; "add" the plain sum in its place.  Run it on a quiet machine.
"""

from ..analysis import benchmark
from ..tables import speed
from ..training.benchmark import train
from ..utils.arguments import Parser
from ..utils.errors import positive_int
from ..utils.files import check_parent, write_json
from ..utils.provenance import processor, provenance

KINDS = {
    "fusion": benchmark.fusion,
    "train": train,
    "infer": benchmark.infer,
    "data": benchmark.data,
    "photos": benchmark.photos,
    "tables": speed.measure,
}


def main():
    parser = Parser(__doc__, "benchmark")
    parser.add_argument("kind", choices=KINDS, help="what to measure")
    parser.add_argument(
        "--turns", type=int, default=5, help="turns of each case after a warm-up (%(default)s)"
    )
    parser.add_argument("--out", metavar="FILE.json", help="also write the figures, exact")
    args = parser.parse_args()
    positive_int("--turns", args.turns)
    if args.out:
        check_parent(args.out)
    rows = KINDS[args.kind](args.turns)
    columns = [key for key in rows[0] if key not in ("case", "unit")]
    print(f"{rows[0]['unit']:<48}" + "".join(f"{column:>18}" for column in columns))
    for row in rows:
        digits = {column: 2 if "/" in column or row[column] < 100 else 0 for column in columns}
        values = "".join(f"{row[column]:>18.{digits[column]}f}" for column in columns)
        print(f"{row['case']:<48}" + values)
    if args.out:
        how = {"kind": args.kind, "turns": args.turns, "processor": processor()}
        write_json(args.out, {**how, **provenance(), "figures": rows})
        print("written", args.out)
