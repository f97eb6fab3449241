"""Tracking objects through a video, frame by frame."""

from inference_core.core import InferenceCore, precision_name
from inference_core.memory import MODES

__all__ = ["MODES", "InferenceCore", "precision_name"]
