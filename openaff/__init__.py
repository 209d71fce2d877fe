"""openaff: attentional feature fusion (AFF, iAFF, MS-CAM; WACV 2021) in MXNet/Gluon."""

from .utils import framework as runtime

if not runtime.doctor_asked():
    runtime.import_mxnet()
    from .attention import MSCAM
    from .fusion import (
        AFF,
        IAFF,
        ASKCFuse,
        AXYforXplusYAddFuse,
        AXYforXYAddFuse,
        AYforXplusYAddFuse,
        ConcatFuse,
        DirectAddFuse,
        GAUFuse,
        ResGlobChaFuse,
        ResGlobforGlobChaFuse,
        ResGlobGlobChaFuse,
        ResGlobLocaChaFuse,
        ResGlobLocaforGlobLocaChaFuse,
        ResLocaChaFuse,
        ResLocaforLocaChaFuse,
        ResLocaLocaChaFuse,
        SEFuse,
        SKFuse,
        XplusAYforYAddFuse,
    )
    from .models import create_model, list_models
    from .utils.errors import UserError

__version__ = "0.1.0"

__all__ = [
    "AFF",
    "IAFF",
    "MSCAM",
    "ASKCFuse",
    "AXYforXYAddFuse",
    "AXYforXplusYAddFuse",
    "AYforXplusYAddFuse",
    "ConcatFuse",
    "DirectAddFuse",
    "GAUFuse",
    "ResGlobChaFuse",
    "ResGlobGlobChaFuse",
    "ResGlobLocaChaFuse",
    "ResGlobLocaforGlobLocaChaFuse",
    "ResGlobforGlobChaFuse",
    "ResLocaChaFuse",
    "ResLocaLocaChaFuse",
    "ResLocaforLocaChaFuse",
    "SEFuse",
    "SKFuse",
    "UserError",
    "XplusAYforYAddFuse",
    "create_model",
    "list_models",
]
