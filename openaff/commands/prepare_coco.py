"""Make a segmentation data set of some of COCO's categories, such as the paper's StopSign.

    openaff prepare-coco --coco DIR --category "stop sign" --out stopsign
    openaff prepare-coco --coco DIR --category car --category bus --out traffic

DIR holds COCO 2017 as it is distributed: annotations/instances_train2017.json and
instances_val2017.json, train2017/ and val2017/.  Only images that contain a category are taken;
those of val2017 are the test split.  The folder is for data.name=masks or, of stop signs alone,
data.name=stopsign.
"""

from ..data.coco import prepare
from ..utils.arguments import Parser


def main():
    parser = Parser(__doc__, "prepare-coco")
    parser.add_argument("--coco", required=True, metavar="DIR", help="COCO's folder")
    parser.add_argument(
        "--category",
        required=True,
        action="append",
        metavar="NAME",
        help="a category of COCO's; may be repeated",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    args = parser.parse_args()
    for split, facts in prepare(args.coco, args.category, args.out)["splits"].items():
        objects = ", ".join(f"{count:,} {name}" for name, count in facts["objects"].items())
        print(
            f"{split}: {facts['images']:,} images of {facts['source']}; objects: {objects}; "
            f"crowds, to be ignored: {facts['crowds']:,}"
        )
    print(f"written to {args.out}")
