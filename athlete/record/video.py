"""Films of episodes: mp4 through the ffmpeg that imageio-ffmpeg ships, without a display; GIF where ffmpeg cannot run.

`act` and `make_env` are all that is needed to film; environments are Gymnasium's in style (`reset(seed=)`, `step`,
`render`), but nothing here imports Gymnasium.
"""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

log = logging.getLogger(__name__)

Act = Callable[[Any, Any, bool], tuple[Any, Any]]  # (observation, state, first) -> (action for env.step, next state)


class Film(NamedTuple):
    """One filmed episode: where it is, its undiscounted return and its length in steps."""

    path: Path
    episode_return: float
    length: int


class VideoWriter:
    """Writes frames, uint8 `[H, W, 3]`, to `path` as they come (mp4 or GIF by its ending); use it in a `with` block.

    Where ffmpeg cannot run, an `.mp4` becomes a `.gif`; `path` is then the GIF's. Frames of odd height or width
    repeat their last row or column, since mp4 players want even sizes. The file appears when the block ends; if it
    ends by an exception, no file is left.
    """

    def __init__(self, path: str | Path, fps: float):
        path = Path(path)
        if path.suffix not in (".mp4", ".gif"):
            raise ValueError(f"cannot write a video to {path}: its name must end in .mp4 or .gif")
        if not fps > 0:
            raise ValueError(f"cannot write {path} at {fps} frames a second: fps must be above 0")
        if path.suffix == ".mp4" and not _ffmpeg_runs():
            path = path.with_suffix(".gif")
            log.warning("ffmpeg does not run here: writing %s instead of mp4 (mend: pip install imageio-ffmpeg)", path)
        self.path = path
        self.fps = fps
        self.frames = 0
        self._shape: tuple[int, ...] = ()
        self._file: Any = None
        self._temporary = path.with_name(f".tmp-{path.name}")

    def append(self, frame: Any) -> None:
        """Add a frame. Raises ValueError if it is no picture, or not of the first frame's size."""
        frame = _checked_frame(frame, self.frames)
        if self._file is None:
            self._shape = frame.shape
            self._file = self._open()
        if frame.shape != self._shape:
            raise ValueError(
                f"frame {self.frames} is {frame.shape[0]}x{frame.shape[1]} pixels high and wide, and the frames "
                f"before it are {self._shape[0]}x{self._shape[1]}: all frames of a video must have one size"
            )
        if self.path.suffix == ".mp4":
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        self._file.append_data(frame)
        self.frames += 1

    def _open(self) -> Any:
        import imageio.v2 as imageio

        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix == ".gif":
            return imageio.get_writer(self._temporary, mode="I", duration=1000 / self.fps, loop=0)
        # Else imageio starts ffmpeg by a fork that runs Python, which can hang once JAX has threads.
        os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
        # Sizes are even already; a larger block would make ffmpeg rescale, which blurs.
        return imageio.get_writer(self._temporary, fps=self.fps, macro_block_size=2)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
            if kind is None and not self.frames:
                raise ValueError(f"cannot write {self.path}: there was no frame")
            if kind is None:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Write `frames`, uint8 `[H, W, 3]` of one size, as a video and return its path (see `VideoWriter`).

    Raises ValueError if there is no frame or one that is no picture.
    """
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.append(frame)
    return video.path


def as_gif(path: str | Path, size: int = 240, frames: int = 120, fps: float = 12.0) -> tuple[bytes, int, int]:
    """A film as a GIF: its bytes, height and width. It is as fast as the film, and shorter and smaller.

    At most `frames` pictures, `fps` a second, of at most about `size` pixels: every n-th pixel of a larger one.
    """
    import imageio.v3 as imageio

    film_fps = float(imageio.immeta(path).get("fps") or 1000.0 / (imageio.immeta(path).get("duration") or 100.0))
    every = max(1, round(film_fps / fps))
    shown = []
    for number, frame in enumerate(imageio.imiter(path)):
        if number % every == 0:
            step = -(-max(frame.shape[:2]) // size)
            shown.append(frame[::step, ::step, :3])
        if len(shown) == frames:
            break
    data = imageio.imwrite("<bytes>", np.stack(shown), extension=".gif", duration=1000.0 * every / film_fps, loop=0)
    return data, *shown[0].shape[:2]


def record_episodes(
    make_env: Callable[[], Any],
    act: Act,
    folder: str | Path,
    episodes: int = 1,
    seed: int = 0,
    fps: float | None = None,
    max_steps: int = 10_000,
) -> list[Film]:
    """Play `episodes` episodes and film each into `folder` as `episode_000.mp4`, `episode_001.mp4`, ...

    Films that are there already stay: numbers go on after theirs.

    `make_env()` gives an environment with `render_mode="rgb_array"`; episode i starts with `reset(seed=seed + i)`.
    `act(observation, state, first)` gives `(action, state)`: `state` is None at an episode's first step and after
    that whatever `act` gave. `fps` is by default the environment's `metadata["render_fps"]`, or 30. An episode still
    running after `max_steps` is cut there, with a line in the log.

    Raises ValueError if the environment does not render pictures.
    """
    _render_without_display()
    env = make_env()
    try:
        if getattr(env, "render_mode", "rgb_array") != "rgb_array":
            raise ValueError(
                f"{_name(env)} has render_mode={env.render_mode!r}, and a film needs pictures: "
                "make it with render_mode='rgb_array'"
            )
        fps = fps or (getattr(env, "metadata", None) or {}).get("render_fps") or 30
        first = _next_number(Path(folder))
        return [
            _record_episode(
                env, act, VideoWriter(Path(folder) / f"episode_{first + index:03d}.mp4", fps), seed + index, max_steps
            )
            for index in range(episodes)
        ]
    finally:
        env.close()


def _next_number(folder: Path) -> int:
    """One more than the largest number of the films in a folder."""
    numbers = [path.stem.removeprefix("episode_") for path in folder.glob("episode_*.*")]
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)


def _record_episode(env: Any, act: Act, writer: VideoWriter, seed: int, max_steps: int) -> Film:
    episode_return, length, state, done = 0.0, 0, None, False
    with writer as video:
        observation, _ = env.reset(seed=seed)
        video.append(env.render())
        while not done and length < max_steps:
            action, state = act(observation, state, length == 0)
            observation, reward, terminated, truncated, _ = env.step(action)
            video.append(env.render())
            episode_return += float(reward)
            length += 1
            done = bool(terminated or truncated)
    if not done:
        log.warning("%s was still running after %d steps: %s ends there", _name(env), max_steps, video.path)
    return Film(video.path, episode_return, length)


def _name(env: Any) -> str:
    spec = getattr(env, "spec", None)
    return getattr(spec, "id", None) or type(getattr(env, "unwrapped", env)).__name__


def _checked_frame(frame: Any, index: int) -> np.ndarray:
    if frame is None:
        raise ValueError(
            f"frame {index} is None: the environment renders nothing; make it with render_mode='rgb_array'"
        )
    if isinstance(frame, list):
        raise ValueError(
            f"frame {index} is a list of {len(frame)} frames: make the environment with render_mode='rgb_array', "
            "which renders one at a time, not 'rgb_array_list'"
        )
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(
            f"frame {index} is {frame.dtype} of shape {list(frame.shape)}: "
            "a frame is uint8 of shape [height, width, 3], as render_mode='rgb_array' gives it"
        )
    return frame


@functools.cache
def _ffmpeg_runs() -> bool:
    """Whether there is an ffmpeg for imageio and it starts; asked once in a process."""
    try:
        import imageio_ffmpeg

        executable = imageio_ffmpeg.get_ffmpeg_exe()
        return subprocess.run([executable, "-version"], capture_output=True, timeout=30).returncode == 0
    except (ImportError, RuntimeError, OSError, subprocess.TimeoutExpired):
        return False


def _render_without_display() -> None:
    """Let pygame draw into memory where Linux has no display; it would look for one otherwise."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
