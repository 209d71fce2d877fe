"""Class activation maps: where a network looks. Names and calls as in pytorch-grad-cam."""

from .measures import deletion_insertion, energy_inside
from .methods import METHODS, EigenCAM, GradCAM, GradCAMPlusPlus, LayerCAM, ScoreCAM
from .targets import (
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    SemanticSegmentationTarget,
)

__all__ = [
    "METHODS",
    "ClassifierOutputSoftmaxTarget",
    "ClassifierOutputTarget",
    "EigenCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "LayerCAM",
    "ScoreCAM",
    "SemanticSegmentationTarget",
    "deletion_insertion",
    "energy_inside",
]
