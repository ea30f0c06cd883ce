"""Weights files with the right layout and random content, to stand in for the published ones."""

import torch
import torchvision


def save_backbone(file, net, *, seed=0):
    """torchvision's state dict of ``vgg`` or ``alex``, all keys; the classifier's are one number.

    Variances are kept from layer to layer, so that distances are of order 1.
    """
    construct = {"vgg": torchvision.models.vgg16, "alex": torchvision.models.alexnet}[net]
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in construct(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.startswith("classifier"):
            # stored as a single number: 500 MB otherwise
            state[name] = torch.zeros(1).expand(shape)
            continue
        fan_in = shape[1:].numel() if len(shape) > 1 else 100
        state[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    torch.save(state, file)
    return file
