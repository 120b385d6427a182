"""Pose transformers with keypoint tokens, from one class and a table of variants."""
__version__ = "0.2.0.dev0"

from importlib import import_module

# Names that the package offers at its top, by the module that holds them. They are fetched on
# first use, so that `import dppt_nb` costs nothing.
_HOMES = {
    "create_model": "models", "list_models": "models", "macs": "models",
    "load_backbone": "checkpoints", "load_network": "checkpoints", "load_released": "checkpoints",
    "PosePredictor": "predictor", "PoseTransformer": "tokenpose",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name):
    if name not in _HOMES: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__(): return sorted(__all__)
