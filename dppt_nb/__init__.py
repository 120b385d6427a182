"""Pose transformers with keypoint tokens, from one class and a table of variants."""
__version__ = "0.1.0"

from importlib import import_module

# Names that the package offers at its top, by the module that holds them. They are fetched on
# first use, so that `import dppt_nb` costs nothing.
_NAMES = "create_model list_models load_backbone load_released macs PoseTransformer"
_HOMES = dict.fromkeys(_NAMES.split(), "tokenpose")
__all__ = [*_HOMES, "__version__"]


def __getattr__(name):
    if name not in _HOMES: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__(): return sorted(__all__)
