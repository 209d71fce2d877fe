"""Run a program with fewer digits: ``python few_digits.py TRAIN TEST PROGRAM ARGUMENTS``."""

import runpy
import sys

import pytest
from helpers import fewer_images

_, train, test, *sys.argv = sys.argv
with pytest.MonkeyPatch.context() as patch:
    fewer_images(patch, "digits", int(train), int(test))
    runpy.run_path(sys.argv[0], run_name="__main__")
