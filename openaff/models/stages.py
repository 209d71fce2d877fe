"""What the families share: stages in ``features``, stage outputs, one way to read options."""

from functools import partial

from mxnet.gluon import nn

from ..fusion import fusion_by_stage, fusion_factory
from ..utils.errors import UserError


def norm_and_fusion(
    fusion, reduction, default_reduction, first_fused_stage, stages, norm_layer, norm_kwargs
):
    """``(norm, fusion of stage)`` from a family's options: see its class.

    Returns
    -------
    norm : callable
        ``norm(in_channels=C, **more)``.
    stage_fusion : callable
        ``stage_fusion(number)`` gives the fusion factory of a stage, counted from 1.
    """
    if reduction is not None and first_fused_stage == stages + 1:
        raise UserError(f"reduction={reduction!r} has no effect: no stage is fused")
    factory = fusion_factory(
        fusion, reduction, default_reduction, norm_layer=norm_layer, norm_kwargs=norm_kwargs
    )
    norm = partial(norm_layer, **(norm_kwargs or {}))
    return norm, fusion_by_stage(factory, first_fused_stage, stages)


def make_stage(prefix, blocks, make_block):
    """A sequence of ``blocks`` blocks, ``make_block(index)`` each."""
    stage = nn.HybridSequential(prefix=prefix)
    with stage.name_scope():
        for index in range(blocks):
            stage.add(make_block(index))
    return stage


class StagedNet(nn.HybridBlock):
    """A network of ``features``, stages among them, and ``output``.

    With ``features_only`` it ends with its last stage and gives the list of all stages' outputs,
    the largest map first, for those who build on a backbone.
    """

    def _finish(self, stages, head, num_classes, in_channels, features_only):
        """Append ``head`` to ``features`` and make ``output``, unless ``features_only``."""
        count = len(self.features)
        self._stages = range(count - stages, count)
        self.output = None
        if not features_only:
            self.features.add(*head)
            self.output = nn.Dense(num_classes, in_units=in_channels)

    def hybrid_forward(self, F, x):
        if self.output is not None:
            return self.output(self.features(x))
        outputs = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._stages:
                outputs.append(x)
        return outputs
