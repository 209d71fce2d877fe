"""Turn a PyTorch state dict into MXNet parameters.

    openaff import-pytorch --state exports/aff8/aff_cifar_resnet8.safetensors \\
        --out aff8.params
    openaff import-pytorch --state FILE --model aff_cifar_resnet32 --out aff32.params
    openaff import-pytorch --state FILE --model iAFF --shared-global --out iaff.params

--model may also be a block: AFF, iAFF, MS_CAM (as in PyTorch ports) or another fusion's name.  The
file needs the names that network.py has, see docs/pytorch.md.  Of .pt and .pth files only tensors
are loaded, never code.
"""

import pathlib

from ..deploy.pytorch.states import import_state
from ..utils.arguments import Parser, add_imports, add_option
from ..utils.arrays import parameters, save_arrays
from ..utils.configs import parse_options
from ..utils.files import check_parent
from ..utils.imports import import_modules


def parse_args():
    parser = Parser(__doc__, "import-pytorch")
    add_imports(parser)
    parser.add_argument("--state", required=True, metavar="FILE", help=".safetensors, .pt or .pth")
    parser.add_argument(
        "--model", metavar="NAME", help="a network or a block (what the file says, if it does)"
    )
    add_option(parser, "option of --model, such as width_multiplier=1")
    parser.add_argument(
        "--shared-global",
        action="store_true",
        help="use global_att for global_att2, too: ports of iAFF that call it in both rounds",
    )
    parser.add_argument("--out", required=True, metavar="FILE.params", help="file to write")
    return parser.parse_args()


def main():
    args = parse_args()
    out = pathlib.Path(args.out)
    check_parent(out)
    import_modules(args.imports)
    options = parse_options(args.option)
    model, net = import_state(args.state, args.model, options, args.shared_global)
    save_arrays(out, parameters(net))
    print(f"{model}: {len(net._collect_params_with_prefix())} arrays")
    print(f"written {out}")
