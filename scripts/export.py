#!/usr/bin/env python
"""Export a finished run as symbol JSON and params, which plain MXNet loads without openaff.

python scripts/export.py --run runs/aff8 --out exports/aff8
"""

import argparse

from openaff import cli
from openaff.export import export_symbol, load_run


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="folder of a finished run")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the files")
    args = parser.parse_args()
    net, config, _ = load_run(args.run)
    files, difference = export_symbol(net, args.out, config.model.name, (3, 32, 32))
    print(f"largest relative difference after re-import: {difference:.1e}")
    for path in files:
        print("written", path)


if __name__ == "__main__":
    cli.run(main)
