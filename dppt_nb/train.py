"""Nothing is left here: what the module had is in others, see `dppt_nb.moved`. Goes in version 0.4."""
from dppt_nb.moved import former_names

__getattr__ = former_names("dppt_nb.train")
