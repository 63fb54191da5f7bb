"""What a network looks at in a video: a picture, the pictures of a film, or a page to explore.

    viewer = Viewer(sifa.load("output/demo/checkpoints/last.pth", num_clips=1, num_crops=1), "video.mp4")
    picture = viewer.picture(*viewer.strongest_moment())

`import sifa` does not import this module, because it needs matplotlib: `from sifa.viewer import Viewer`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from datasets.sampling import test_positions
from datasets.video_files import VideoFiles
from sifa.motion import changes, is_still, strongest_pair
from sifa.picture_files import brighten
from sifa.predictor import Predictor, count_frames
from visualization import Explanation, Moment, draw, explain, html_page

_SHARPEST = 512  # pixels of the short side of a drawn frame
_FINE = 10  # positions along a side of a map that shows where something is


class ArgumentError(UserError):
    """An argument has an impossible value. The message begins with the name of the argument."""


@dataclass(frozen=True)
class Clip:
    """A clip of a video: uint8 (T, H, W, 3), RGB.

    `positions` are the 0-based positions of its frames in the video; `shown` are those of the frames that are drawn,
    one for each frame of the network.
    """

    frames: np.ndarray
    positions: list[int]
    shown: list[int]


class Viewer:
    """Draws what a network does with the clips of a video.

    Frames of the network are made of one or more frames of a clip. SIFA relates frame t to frame t+1: a pair t.

    Args:
        predictor: with one crop, whose clips have two frames of the network at least.
        video: file.
        stage: res2..res5, with SIFA; None: the last one whose maps are fine enough, or else the finest.
        label: class of Grad-CAM; None: the predicted one.
        blocks: SIFA blocks that the stacked points go through, at most.
        crop_size: S, pixels that the network sees; None: those of the validation.
        gamma: exponent of the grey levels; below 1 draws dark videos brighter.

    Raises:
        DataError: the video is missing, does not decode or has fewer than two frames.
        UserError: the network has no SIFA, or a clip is a single frame of the network.
        ArgumentError: the stage has no SIFA, or there is no such class.
    """

    def __init__(
        self,
        predictor: Predictor,
        video: str | os.PathLike[str],
        *,
        stage: str | None = None,
        label: int | None = None,
        blocks: int = 3,
        crop_size: int | None = None,
        gamma: float = 1.0,
    ) -> None:
        self.predictor, self.video = predictor, Path(video)
        self.num_frames = count_frames(self.video)
        self.size = predictor.size if crop_size is None else crop_size
        self.label, self.blocks, self.gamma = label, blocks, gamma
        self.pairs = predictor.frames // predictor.model.stem_frames - 1
        self.stages = predictor.model.stages_with_sifa()
        if not self.stages:
            raise UserError("the network has no SIFA")
        if self.pairs < 1:
            raise UserError(f"a clip of {predictor.frames} frames is one frame to the network: SIFA has no next one")
        if label is not None and not 0 <= label < len(predictor.classes):
            raise ArgumentError(f"label must be in 0..{len(predictor.classes) - 1}, got {label}")
        self.stage = stage or self._fine_stage()
        if self.stage not in self.stages:
            raise ArgumentError(f"stage {self.stage} of this network has no SIFA; it is in {', '.join(self.stages)}")
        self._last: tuple[int, Clip] | None = None

    def _fine_stage(self) -> str:
        """The last stage whose maps have _FINE x _FINE positions at least: res4 of 224 pixels; or the first stage."""
        grids = {stage: self.predictor.model.grid(stage) for stage in self.stages}
        return next((s for s in reversed(self.stages) if self.size // grids[s].stride >= _FINE), self.stages[0])

    # ---- Clips of the video -----------------------------------------------------------------------------------------

    def starts(self) -> range:
        """The clips that fit: the frame at which a clip starts, in the video or in each of its segments."""
        data = self.predictor.config.dataset
        return range(max(self.num_frames // data.num_segments - data.clip_length * data.num_steps, 1))

    def positions(self, start: int) -> list[int]:
        """The 0-based positions of the frames of a clip in the video, (T,)."""
        data = self.predictor.config.dataset
        return test_positions(
            self.num_frames,
            num_segments=data.num_segments,
            clip_length=data.clip_length,
            num_steps=data.num_steps,
            clip=start,  # with as many test clips as there are starts, clip i starts at frame i
            num_clips=len(self.starts()),
        )

    def clip(self, start: int) -> Clip:
        """Reads a clip. Raises DataError if it does not decode."""
        if self._last is None or self._last[0] != start:
            positions = self.positions(start)
            frames = VideoFiles(self.video.parent).read(self.video.name, positions)
            self._last = start, Clip(frames, positions, self._shown(start))
        return self._last[1]

    def _shown(self, start: int) -> list[int]:
        return self.positions(start)[self.predictor.model.shown_frames]

    def middle(self) -> int:
        """The start of the clip in the middle of the video."""
        return len(self.starts()) // 2

    def strongest_moment(self) -> tuple[int, int]:
        """Start and pair t between whose frames most changes in the video, in the middle of a clip if possible.

        Raises:
            DataError: the video does not decode.
        """
        return strongest_pair(changes(self.video), [self._shown(start) for start in self.starts()])

    def is_still(self, start: int, t: int) -> bool:
        """Whether hardly anything moves from frame t to frame t+1 of a clip. Raises DataError as `clip`."""
        frames = self.clip(start).frames[self.predictor.model.shown_frames]
        return is_still(frames[t], frames[t + 1])

    def moment_of(self, frame: int) -> tuple[int, int]:
        """Start and pair t of which frame t is nearest to a frame of the video, in the middle of a clip if possible.

        Raises:
            ArgumentError: the video has no such frame.
        """
        if not 0 <= frame < self.num_frames:
            raise ArgumentError(f"frame must be in 0..{self.num_frames - 1}, got {frame}")

        def distance(moment: tuple[int, int]) -> tuple[int, int]:
            start, t = moment
            return abs(self._shown(start)[t] - frame), abs(2 * t - (self.pairs - 1))

        return min(((start, t) for start in self.starts() for t in range(self.pairs)), key=distance)

    def moments(self) -> tuple[list[tuple[int, int]], int]:
        """Start and pair of every picture of a film, and the frames of the video from one picture to the next.

        These are the middle pairs of all clips; or all pairs of one clip where a clip takes nearly the whole video.
        """
        starts = self.starts()
        if len(starts) >= self.pairs:
            return [(start, (self.pairs - 1) // 2) for start in starts], 1
        shown = self._shown(self.middle())
        return [(self.middle(), t) for t in range(self.pairs)], max(shown[1] - shown[0], 1)

    # ---- What the network does with a clip --------------------------------------------------------------------------

    def explain(self, clip: Clip, stage: str) -> Explanation:
        """What the network does with a clip in a stage.

        Raises:
            UserError: the answer of the network is not finite, or it cannot take this crop size.
        """
        try:
            crop = self.predictor.normalise(self.predictor.crops(clip.frames, self.size))
            return explain(self.predictor.model, crop, stage, self.label)
        except ValueError as error:
            raise UserError(str(error)) from None

    def drawn_frames(self, clip: Clip) -> np.ndarray:
        """The crop of the frames that are drawn, in the resolution of the video: uint8 (T', S', S', 3), RGB."""
        size = max(self.size, min(*clip.frames.shape[1:3], _SHARPEST))
        frames = self.predictor.crops(clip.frames[self.predictor.model.shown_frames], size)[0].numpy()
        return brighten(frames, self.gamma)

    def position(self, query: tuple[float, float], clip: Clip, explanation: Explanation) -> tuple[int, int]:
        """y and x of a query in positions of the stage's maps.

        Args:
            query: x and y in pixels of the video.

        Raises:
            ArgumentError: the query is outside the crop.
        """
        height, width = clip.frames.shape[1:3]
        side = min(height, width)
        scale = self.size / side
        y, x = (
            (pixel + 0.5) * scale - 0.5 - (length * scale - self.size) / 2
            for pixel, length in ((query[1], height), (query[0], width))
        )
        if not all(-0.5 <= pixel <= self.size - 0.5 for pixel in (y, x)):
            left, top = (width - side) // 2, (height - side) // 2
            raise ArgumentError(
                f"query must be in the part of the frame that the network sees, x in {left}..{left + side - 1} and y "
                f"in {top}..{top + side - 1}, got {query[0]:g},{query[1]:g}"
            )
        rows, columns = explanation.attentions[-1].saliency.shape[1:]
        return explanation.grid.nearest(y, rows), explanation.grid.nearest(x, columns)

    def _query(
        self, t: int | None, query: tuple[float, float] | None, clip: Clip, explanation: Explanation
    ) -> tuple[int, int, int]:
        """t, y and x of the query; those of the strongest motion where t or the query is None."""
        t, y, x = explanation.strongest_motion(t)
        return (t, *self.position(query, clip, explanation)) if query else (t, y, x)

    # ---- What is drawn ----------------------------------------------------------------------------------------------

    def picture(self, start: int, t: int | None = None, query: tuple[float, float] | None = None) -> np.ndarray:
        """Six panels, uint8 (H, W, 3), RGB.

        Args:
            start: of the clip.
            t: pair; None: the one with the strongest motion.
            query: x and y in pixels of the video; None: the position of the strongest motion.

        Raises:
            DataError, UserError, ArgumentError: see `clip`, `explain` and `position`.
        """
        clip = self.clip(start)
        explanation = self.explain(clip, self.stage)
        t, y, x = self._query(t, query, clip, explanation)
        frames = self.drawn_frames(clip)
        name = self.predictor.classes[explanation.label]
        still = "; hardly any motion between them" if self.is_still(start, t) else ""
        return draw(
            Moment(frames[t], frames[t + 1], self.size, t, y, x),
            explanation,
            title=f"{name}  {100 * explanation.probability:.1f} %",
            subtitle=f"{self.video.name}: frame t is {clip.shown[t]} of the video, frame t+1 is {clip.shown[t + 1]}; "
            f"{explanation.stage}, whose maps are {explanation.cam.shape[1]} x {explanation.cam.shape[2]}{still}",
            class_name=name,
            blocks=min(self.blocks, len(explanation.attentions)),
        )

    def page(
        self,
        start: int,
        t: int | None = None,
        query: tuple[float, float] | None = None,
        stages: Sequence[str] | None = None,
    ) -> str:
        """HTML to explore one clip. It opens with the query that `picture` draws in the first of the stages.

        Args:
            start, t, query: see `picture`.
            stages: None: all with SIFA.

        Raises:
            DataError, UserError, ArgumentError: see `picture`.
        """
        clip = self.clip(start)
        explanations = [self.explain(clip, stage) for stage in stages or self.stages]
        first = explanations[0]
        opening = self._query(t, query, clip, first)
        name = self.predictor.classes[first.label]
        title = f"{self.video.name}: {name}  {100 * first.probability:.1f} %"
        frames = self.drawn_frames(clip)
        return html_page(frames, clip.shown, self.size, explanations, opening, title=title, class_name=name)
