"""Curves and samples for people's own dashboards: TensorBoard, SwanLab, Weights & Biases, trackio, several at once.

`metrics.jsonl` and `samples.jsonl` stay the truth; a tracker is a view of them that can be made anew. Nothing leaves
this machine unless the recipe says so, and a tracker that breaks never stops the training.
"""

from fangcun.training.trackers.opening import check_trackers, open_trackers
from fangcun.training.trackers.protocol import Tracker
from fangcun.training.trackers.records import scalars_of, send, text_of

__all__ = ["Tracker", "check_trackers", "open_trackers", "scalars_of", "send", "text_of"]
