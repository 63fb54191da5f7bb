"""SIFA as a library: networks from a configuration, predictions from a checkpoint.

predictor = sifa.load("output/demo/checkpoints/last.pth")
probabilities = predictor.predict("video.mp4")

`sifa.viewer` (pictures), `sifa.report` and `sifa.finetune` are imported by their names.
"""

from models import InterFrameAttention, build_model
from sifa.build import build_dataset, build_network
from sifa.predictor import Predictor, load

__all__ = ["InterFrameAttention", "Predictor", "build_dataset", "build_model", "build_network", "load"]
