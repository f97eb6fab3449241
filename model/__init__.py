"""The network and its checkpoints."""

from model.checkpoint import load_network
from model.clicks import load_clicks
from model.config import PRESETS, NetworkConfig
from model.network import RDE

__all__ = ["PRESETS", "RDE", "NetworkConfig", "load_clicks", "load_network"]
