"""The ResNet is torchvision's, up to stride 16."""

import pytest
import torch
import torchvision

from model.resnet import LAYERS, ResNet


@pytest.mark.parametrize("name", LAYERS)
def test_it_has_torchvision_s_names_and_results(name):
    theirs = getattr(torchvision.models, name)(weights=None)
    ours = ResNet(name)
    wanted = {key: value for key, value in theirs.state_dict().items() if not key.startswith(("layer4", "fc"))}
    # The order counts, too: it is part of how weights are told apart.
    assert list(ours.state_dict()) == list(wanted)
    ours.load_state_dict(wanted)
    x = torch.rand(2, 3, 64, 96)
    for layer in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        x, wanted = getattr(ours, layer)(x.clone()), getattr(theirs, layer)(x.clone())
        assert torch.equal(x, wanted)
    assert ours.dims[0] == x.shape[1]


def test_random_weights_vary_as_much_as_torchvision_s():
    theirs, ours = torchvision.models.resnet18(weights=None), ResNet("resnet18")
    for name in ("conv1", "layer1.0.conv1", "layer3.1.conv2"):
        pair = [net.get_submodule(name).weight.std().item() for net in (theirs, ours)]
        assert pair[0] == pytest.approx(pair[1], rel=0.05)
