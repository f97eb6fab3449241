"""Where a training starts from: ImageNet trunks, or the network of an earlier stage."""

import dataclasses
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision

from model.checkpoint import load_network, read_checkpoint
from model.network import RDE
from util.errors import InputError


def new_network(config, backbone_weights):
    """A network with random weights and trunks from `backbone_weights`: "imagenet", "none", or a folder.

    The folder holds torchvision's files, resnet50-….pth and so on. Raises InputError where they cannot be had.
    """
    network = RDE(config)
    if backbone_weights != "none":
        for load, encoder, trunk in ((_load_key_trunk, network.key_encoder, config.key_trunk),
                                     (_load_value_trunk, network.value_encoder, config.value_trunk)):
            try:
                load(encoder, _trunk_weights(trunk, backbone_weights))
            except (RuntimeError, KeyError) as error:
                raise InputError(f"--backbone_weights {backbone_weights}: these are not torchvision's weights of "
                                 f"{trunk} ({str(error).splitlines()[0]})") from None
    return network


def continued_network(path, config):
    """The network stored at `path` as the start of a stage that trains `config`.

    From a single-object network (stage 0) come all weights that both have; the input channel for the other objects'
    masks starts orthogonal, SAM at random. The same goes for a network without SAM. Raises InputError for a network
    that does not lead to `config`.
    """
    source = load_network(path)
    same = dataclasses.replace(source.config, sam=config.sam, repeat=config.repeat, single_object=config.single_object)
    if same != config or (config.single_object and not source.config.single_object):
        raise InputError(f"{path}: this stage does not go on from such a network ({source.config})")
    if source.config.sam and source.config.repeat != config.repeat:
        raise InputError(f"{path}: has repeat {source.config.repeat}, --repeat says {config.repeat}")
    network = RDE(config)
    state = source.state_dict()
    missing = network.state_dict().keys() - state.keys()
    if source.config.single_object and not config.single_object:
        state["value_encoder.conv1.weight"] = _with_extra_channels(state["value_encoder.conv1.weight"], 1)
    state.update({key: value for key, value in network.state_dict().items() if key in missing})
    network.load_state_dict(state)
    return network


def _with_extra_channels(weight, count):
    """Convolution weights with `count` further input channels, orthogonal among the filters."""
    extra = torch.empty(weight.shape[0], count, *weight.shape[2:])
    torch.nn.init.orthogonal_(extra)
    return torch.cat([weight, extra], 1)


def _trunk_weights(trunk, origin):
    url = torchvision.models.get_model_weights(trunk)["IMAGENET1K_V1"].url
    if origin == "imagenet":
        try:
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        except (URLError, OSError) as error:
            raise InputError(f"the ImageNet weights of {trunk} could not be fetched ({error}): put {url} into a folder "
                             "and give --backbone_weights FOLDER, or start with --backbone_weights none") from None
    file = Path(origin) / Path(url).name
    if not file.is_file():
        raise InputError(f"{file}: no such file; --backbone_weights is imagenet, none, or a folder that holds it")
    return read_checkpoint(file)


def _load_key_trunk(encoder, weights):
    for ours, theirs in (("conv1", "conv1"), ("bn1", "bn1"), ("res2", "layer1"), ("layer2", "layer2"),
                         ("layer3", "layer3")):
        getattr(encoder, ours).load_state_dict(_part(weights, theirs))


def _load_value_trunk(encoder, weights):
    # ImageNet networks have no biases in their convolutions; ours keep their first values.
    state = encoder.state_dict()
    extra = state["conv1.weight"].shape[1] - 3
    weights = {**weights, "conv1.weight": _with_extra_channels(weights["conv1.weight"], extra)}
    state.update({key: value for key, value in weights.items() if key in state})
    encoder.load_state_dict(state)


def _part(weights, name):
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
