#!/usr/bin/env python
"""Train a network for semantic segmentation: CamVid, StopSign, your own masks, embedded scenes.

    python scripts/train_segmentation.py --config configs/segmentation/camvid_fpn.yaml \\
        --out runs/camvid data.root=DIR
    python scripts/train_segmentation.py --resume runs/camvid

SIGTERM and Ctrl-C finish the step, write a checkpoint and exit with status 75.  --resume continues
from there, or after a crash from the last checkpoint, to the same result.
"""

from openaff.training.command import main
from openaff.utils import cli

if __name__ == "__main__":
    cli.run(lambda: main(__doc__))
