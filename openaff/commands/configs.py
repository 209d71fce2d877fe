"""List the recipes that come with openaff, or print one.

    openaff configs
    openaff configs 'cifar/*'
    openaff configs cifar/aff_resnet8 > mine.yaml

A name prints the recipe: a file of your own begins as a copy of it.  openaff train takes both.
"""

import fnmatch

from ..utils.arguments import Parser
from ..utils.errors import UserError
from ..utils.files import read_text
from ..utils.packaged import CONFIGS, config_names, config_path, title


def main():
    parser = Parser(__doc__, "configs")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a recipe, or a quoted pattern")
    name = parser.parse_args().name
    if name is not None and not set("*?[") & set(name):
        print(read_text(config_path(name)), end="")
        return
    names = fnmatch.filter(config_names(), name or "*")
    if not names:
        raise UserError(f"no config matches {name!r}: openaff configs lists them all")
    width = max(map(len, names))
    for each in names:
        print(f"{each:<{width}}  {title(CONFIGS / f'{each}.yaml')}")
