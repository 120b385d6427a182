"""The network of tests whose point is another: that a run is saved, goes on, is told. Its backbone
is nano's with eight channels at most, a row that is there for tests only; a step of it and a
saved state take a third of the time. Commands in another process do not know it."""
from dppt_nb.backbones import BACKBONES, Backbone, Pyramid

BACKBONES["tiny"] = Backbone(
    lambda config: Pyramid((4, 8, 8, 8), config.pyramid_blocks), (8, 8, 8), (4, 8, 16)
)
TINY = dict(
    backbone="tiny", pyramid_blocks=1, width=16, depth=1, heads=2, mlp_ratio=1.0, head_channels=16,
)
