"""Tracking objects through a video, frame by frame, and marking one in an image."""

from inference_core.clicks import ClickSession
from inference_core.core import InferenceCore, precision_name
from inference_core.memory import MODES
from inference_core.state import load_state, save_state
from inference_core.tracking import TrackedFrame, open_engine, open_network, track_frames

__all__ = ["MODES", "ClickSession", "InferenceCore", "TrackedFrame", "load_state", "open_engine", "open_network",
           "precision_name", "save_state", "track_frames"]
