"""SIFA as a library: networks from a configuration, predictions from a checkpoint.

predictor = sifa.load("output/demo/checkpoints/last.pth")
probabilities = predictor.predict("video.mp4")

`sifa.viewer` (pictures), `sifa.report` and `sifa.finetune` are imported by their names.
"""

from models import InterFrameAttention, build_model, list_models
from sifa.build import build_dataset, build_network
from sifa.loading import load
from sifa.prediction import Prediction
from sifa.predictor import Predictor
from sifa.windows import Window

__all__ = [
    "InterFrameAttention",
    "Prediction",
    "Predictor",
    "Window",
    "build_dataset",
    "build_model",
    "build_network",
    "list_models",
    "load",
]
