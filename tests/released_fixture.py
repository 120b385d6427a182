"""Small checkpoints in the layouts that TokenPose's and SDPose's code release, made by program, and
the network written out a second time, plainly and in float64, from the papers and the released
parameter names: nothing here uses the package's own layers."""
import math
import zlib

import torch
import torch.nn.functional as F

JOINTS, WIDTH, HEADS, DEPTH, PATCH, IMAGE = 3, 192, 8, 2, (4, 3), (64, 48)
GRID = (IMAGE[0] // 4 // PATCH[0], IMAGE[1] // 4 // PATCH[1])
# layout -> prefix of the backbone, of the rest, and of the layers
LAYOUTS = {
    "tokenpose": ("features.", "features.", "features.transformer.layers."),
    "parallel": ("module.features.", "module.features.", "module.features.transformer.layers."),
    "mmpose": (
        "backbone.", "keypoint_head.tokenpose.",
        "keypoint_head.tokenpose.transformer_layer1.layers.",
    ),
}


def weight(name, shape):
    "Numbers that follow from a parameter's plain name alone, spread like a fresh network's."
    steps = torch.arange(math.prod(shape), dtype=torch.float64)
    noise = (torch.sin(steps * 12.9898 + zlib.crc32(name.encode()) % 1000) * 43758.5453) % 2 - 1
    noise = noise.reshape(shape)
    if name.endswith("running_var"): return 1 + 0.3 * noise.abs()
    if len(shape) == 1: return 0.2 * noise + name.endswith(("norm.weight", "0.weight", ".scale"))
    fan = math.prod(shape[1:]) if len(shape) == 4 else shape[-1]
    return 1.5 * noise / math.sqrt(fan)


def backbone_shapes():
    "Parameters of the stem, by plain names: two convolutions, four bottlenecks."
    convolutions = {"conv1": (64, 3, 3, 3), "conv2": (64, 64, 3, 3)}
    for i in range(4):
        convolutions |= {
            f"layer1.{i}.conv1": (64, 256 if i else 64, 1, 1),
            f"layer1.{i}.conv2": (64, 64, 3, 3), f"layer1.{i}.conv3": (256, 64, 1, 1),
        }
    convolutions["layer1.0.downsample.0"] = (256, 64, 1, 1)
    shapes = {}
    for name, shape in convolutions.items():
        norm = norm_of(name)
        shapes[f"{name}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = shape[:1]
    return shapes


def norm_of(convolution):
    "The batch norm that follows a convolution."
    if convolution.endswith("downsample.0"): return convolution[:-1] + "1"
    return convolution.replace("conv", "bn")


def rest_shapes():
    "Tokens and head."
    pixels = IMAGE[0] // 4 * IMAGE[1] // 4
    return {
        "keypoint_token": (1, JOINTS, WIDTH),
        "patch_to_embedding.weight": (WIDTH, 256 * math.prod(PATCH)),
        "patch_to_embedding.bias": (WIDTH,),
        "mlp_head.0.weight": (WIDTH,), "mlp_head.0.bias": (WIDTH,),
        "mlp_head.1.weight": (pixels, WIDTH), "mlp_head.1.bias": (pixels,),
    }


def layer_shapes():
    "One encoder layer: attention, then MLP."
    return {
        "0.fn.norm.weight": (WIDTH,), "0.fn.norm.bias": (WIDTH,),
        "0.fn.fn.to_qkv.weight": (3 * WIDTH, WIDTH),
        "0.fn.fn.to_out.0.weight": (WIDTH, WIDTH), "0.fn.fn.to_out.0.bias": (WIDTH,),
        "1.fn.norm.weight": (WIDTH,), "1.fn.norm.bias": (WIDTH,),
        "1.fn.fn.net.0.weight": (3 * WIDTH, WIDTH), "1.fn.fn.net.0.bias": (3 * WIDTH,),
        "1.fn.fn.net.3.weight": (WIDTH, 3 * WIDTH), "1.fn.fn.net.3.bias": (WIDTH,),
    }


def plain_weights():
    "All parameters by plain names, float64."
    shapes = backbone_shapes() | rest_shapes()
    for i in range(DEPTH): shapes |= {f"layers.{i}.{k}": s for k, s in layer_shapes().items()}
    return {name: weight(name, shape) for name, shape in shapes.items()}


def released(layout):
    "The same parameters under the names that a layout gives them, float32, as its file holds them."
    backbone, rest, layers = LAYOUTS[layout]
    stem, state = backbone_shapes(), {}
    for name, value in plain_weights().items():
        prefix = backbone if name in stem else rest
        if name.startswith("layers."): prefix, name = layers, name.removeprefix("layers.")
        state[prefix + name] = value.float()
    return state | {rest + "pos_embedding": position_code()[None].float()}


def position_code():
    "TokenPose's sine code, row by row: half of the channels for the row, half for the column."
    half = WIDTH // 2
    code = torch.zeros(*GRID, WIDTH, dtype=torch.float64)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            for part, (at, size) in enumerate(((row, GRID[0]), (column, GRID[1]))):
                turn = (at + 1) / (size + 1e-6) * 2 * math.pi
                for k in range(half):
                    angle = turn / 10000 ** (2 * (k // 2) / half)
                    wave = math.cos(angle) if k % 2 else math.sin(angle)
                    code[row, column, part * half + k] = wave
    return code.flatten(0, 1)


def convolve(weights, name, x, stride=1):
    "A convolution and the batch norm behind it."
    kernel, norm = weights[f"{name}.weight"], norm_of(name)
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + 1e-5).sqrt()
    x = x - weights[f"{norm}.running_mean"][:, None, None]
    return x * scale[:, None, None] + weights[f"{norm}.bias"][:, None, None]


def stem(weights, images):
    "(B, 3, H, W) -> (B, 256, H/4, W/4)"
    x = convolve(weights, "conv1", images, 2).relu()
    x = convolve(weights, "conv2", x, 2).relu()
    for i in range(4):
        short = x if i else convolve(weights, "layer1.0.downsample.0", x)
        for part in ("conv1", "conv2"): x = convolve(weights, f"layer1.{i}.{part}", x).relu()
        x = (convolve(weights, f"layer1.{i}.conv3", x) + short).relu()
    return x


def normalise(weights, name, x):
    "Layer norm over channels."
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attend(weights, name, x, scale):
    "Attention, head after head; queries, keys and values stand one after another in one matrix."
    q, k, v = (x @ weights[f"{name}.to_qkv.weight"].T).split(WIDTH, -1)
    size, mixed = WIDTH // HEADS, []
    for head in range(HEADS):
        mine = slice(head * size, (head + 1) * size)
        shares = (q[..., mine] @ k[..., mine].mT * scale).softmax(-1)
        mixed.append(shares @ v[..., mine])
    mixed = torch.cat(mixed, -1)
    return mixed @ weights[f"{name}.to_out.0.weight"].T + weights[f"{name}.to_out.0.bias"]


def think(weights, name, x):
    "The MLP with the exact GELU."
    x = x @ weights[f"{name}.net.0.weight"].T + weights[f"{name}.net.0.bias"]
    x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return x @ weights[f"{name}.net.3.weight"].T + weights[f"{name}.net.3.bias"]


def patches(features):
    "Patches row by row, each as one vector: its rows, its columns, then channels."
    (h, w), found = PATCH, []
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            patch = features[:, :, row * h : (row + 1) * h, column * w : (column + 1) * w]
            found.append(patch.permute(0, 2, 3, 1).flatten(1))
    return torch.stack(found, 1)


def plain_heatmaps(images, scale):
    """Heatmaps (B, J, H/4, W/4) in float64; attention scores are multiplied by `scale`: the root of
    1/192 in TokenPose's code, of 1/24 in SDPose's."""
    weights = plain_weights()
    x = patches(stem(weights, images.double()))
    x = x @ weights["patch_to_embedding.weight"].T + weights["patch_to_embedding.bias"]
    joints = weights["keypoint_token"].expand(len(x), -1, -1)
    x = torch.cat([joints, x + position_code()], 1)
    for i in range(DEPTH):
        name = f"layers.{i}"
        if i: x = torch.cat([x[:, :JOINTS], x[:, JOINTS:] + position_code()], 1)
        heard = normalise(weights, f"{name}.0.fn.norm", x)
        x = x + attend(weights, f"{name}.0.fn.fn", heard, scale)
        x = x + think(weights, f"{name}.1.fn.fn", normalise(weights, f"{name}.1.fn.norm", x))
    x = normalise(weights, "mlp_head.0", x[:, :JOINTS])
    x = x @ weights["mlp_head.1.weight"].T + weights["mlp_head.1.bias"]
    return x.unflatten(-1, (IMAGE[0] // 4, IMAGE[1] // 4))


def pictures():
    "Two pictures (2, 3, 64, 48) of waves, no two pixels alike."
    steps = torch.arange(2 * 3 * math.prod(IMAGE), dtype=torch.float64)
    waves = torch.sin(steps * 0.37) + torch.cos(steps * 0.0113) + 0.5 * torch.sin(steps**1.5 * 0.01)
    return waves.reshape(2, 3, *IMAGE).float()
