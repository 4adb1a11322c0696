"""Films hold the frames that were given, at their size; what cannot be filmed is refused with a sentence."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest

from athlete.record import video
from athlete.record.video import record_episodes, write_video


def frames(count: int, height: int = 32, width: int = 48) -> Iterator[np.ndarray]:
    """Frame i is one colour, of brightness 20 i."""
    return (np.full((height, width, 3), 20 * index, np.uint8) for index in range(count))


def read(path: Path) -> list[np.ndarray]:
    with imageio.get_reader(path) as reader:
        return [np.asarray(frame) for frame in reader]


class Corridor:
    """Walk right to the end of a corridor; renders its position as brightness. Gymnasium's style, not its import."""

    metadata = {"render_fps": 10, "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, length: int = 5, render_mode: str | None = "rgb_array", picture: Any = "a picture"):
        self.length, self.render_mode, self.picture = length, render_mode, picture
        self.seeds: list[int] = []
        self.closed = False

    def reset(self, *, seed: int) -> tuple[int, dict]:
        self.seeds.append(seed)
        self.position = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        self.position += action
        return self.position, 0.5, self.position == self.length, False, {}

    def render(self) -> Any:
        if isinstance(self.picture, str):
            return np.full((32, 48, 3), 40 * self.position, np.uint8)
        return self.picture

    def close(self) -> None:
        self.closed = True


def walk(observation: int, state: Any, first: bool) -> tuple[int, Any]:
    return 1, None


# Writing frames


def test_an_mp4_holds_the_frames_in_order_and_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "films" / "film.mp4", frames(10), fps=25)
    film = read(path)
    assert path == tmp_path / "films" / "film.mp4"
    assert [frame.shape for frame in film] == [(32, 48, 3)] * 10
    np.testing.assert_allclose([frame.mean() for frame in film], np.arange(10) * 20, atol=4)  # mp4 loses a little
    with imageio.get_reader(path) as reader:
        assert reader.get_meta_data()["fps"] == 25


def test_odd_sizes_are_padded_to_even_ones_without_rescaling(tmp_path: Path) -> None:
    halves = np.zeros((33, 51, 3), np.uint8)
    halves[:, 25:] = 255
    (frame,) = read(write_video(tmp_path / "odd.mp4", [halves], fps=10))
    assert frame.shape == (34, 52, 3)
    assert (frame[:, :24] < 20).all() and (frame[:, 27:] > 235).all()


def test_a_gif_is_written_where_its_name_asks_for_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.gif", frames(5, 33, 51), fps=10)
    assert path.read_bytes()[:6] in (b"GIF87a", b"GIF89a")
    assert [frame.shape[:2] for frame in read(path)] == [(33, 51)] * 5


def test_without_ffmpeg_an_mp4_becomes_a_gif_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-such-ffmpeg"))
    video._ffmpeg_runs.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            path = write_video(tmp_path / "film.mp4", frames(3), fps=10)
    finally:
        video._ffmpeg_runs.cache_clear()
    assert path == tmp_path / "film.gif" and len(read(path)) == 3
    assert "ffmpeg does not run here" in caplog.text and "pip install imageio-ffmpeg" in caplog.text
    assert not (tmp_path / "film.mp4").exists()


def test_a_film_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from frames(3)
        raise RuntimeError("the simulator crashed")

    with pytest.raises(RuntimeError, match="the simulator crashed"):
        write_video(tmp_path / "film.mp4", broken(), fps=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (None, r"frame 1 is None: the environment renders nothing; make it with render_mode='rgb_array'"),
        ([np.zeros((32, 48, 3), np.uint8)], r"a list of 1 frames.*not 'rgb_array_list'"),
        (np.zeros((32, 48), np.uint8), r"uint8 of shape \[32, 48\]: a frame is uint8 of shape \[height, width, 3\]"),
        (np.zeros((32, 48, 3)), r"frame 1 is float64 of shape"),
        (np.zeros((30, 48, 3), np.uint8), r"frame 1 is 30x48 pixels .* before it are 32x48"),
        ("|T|", r"frame 1 is <U3 of shape \[\]"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, frame: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        write_video(tmp_path / "film.mp4", [*frames(1), frame], fps=10)
    assert list(tmp_path.iterdir()) == []


def test_a_film_of_nothing_an_unknown_ending_and_no_speed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"film\.mp4: there was no frame"):
        write_video(tmp_path / "film.mp4", [], fps=10)
    with pytest.raises(ValueError, match=r"film\.avi: its name must end in \.mp4 or \.gif"):
        write_video(tmp_path / "film.avi", frames(1), fps=10)
    with pytest.raises(ValueError, match="at 0 frames a second: fps must be above 0"):
        write_video(tmp_path / "film.mp4", frames(1), fps=0)
    assert list(tmp_path.iterdir()) == []


# Recording episodes


def test_each_episode_is_a_film_of_all_its_steps_and_has_its_own_seed(tmp_path: Path) -> None:
    env = Corridor()
    films = record_episodes(lambda: env, walk, tmp_path, episodes=2, seed=7)
    assert [film.path.name for film in films] == ["episode_000.mp4", "episode_001.mp4"]
    assert [(film.episode_return, film.length) for film in films] == [(2.5, 5), (2.5, 5)]
    assert env.seeds == [7, 8] and env.closed
    pictures = read(films[1].path)
    np.testing.assert_allclose([frame.mean() for frame in pictures], np.arange(6) * 40, atol=4)
    with imageio.get_reader(films[0].path) as reader:
        assert reader.get_meta_data()["fps"] == 10


def test_the_policy_gets_its_state_back_and_is_told_where_an_episode_begins(tmp_path: Path) -> None:
    calls = []

    def count(observation: int, state: int | None, first: bool) -> tuple[int, int]:
        calls.append((observation, state, first))
        return 1, (state or 0) + 1

    record_episodes(lambda: Corridor(length=2), count, tmp_path, episodes=2)
    assert calls == [(0, None, True), (1, 1, False)] * 2


def test_an_episode_without_end_is_cut_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (film,) = record_episodes(lambda: Corridor(length=100), walk, tmp_path, max_steps=4)
    assert film.length == 4 and len(read(film.path)) == 5
    assert "Corridor was still running after 4 steps" in caplog.text


def test_an_environment_that_does_not_render_is_refused_and_closed(tmp_path: Path) -> None:
    env = Corridor(render_mode="human")
    with pytest.raises(ValueError, match=r"Corridor has render_mode='human'.*make it with render_mode='rgb_array'"):
        record_episodes(lambda: env, walk, tmp_path)
    assert env.closed
    env = Corridor(picture=None)
    env.spec = SimpleNamespace(id="Corridor-v0")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="frame 0 is None"):
        record_episodes(lambda: env, walk, tmp_path)
    assert env.closed and list(tmp_path.iterdir()) == []


def test_gymnasiums_cartpole_is_filmed_without_a_display(tmp_path: Path) -> None:
    program = (
        "import sys, gymnasium\n"
        "from athlete.record.video import record_episodes\n"
        "make = lambda: gymnasium.make('CartPole-v1', render_mode='rgb_array')\n"
        "(film,) = record_episodes(make, lambda obs, state, first: (0, None), sys.argv[1])\n"
        "print(film.path, film.length)"
    )
    headless = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    }
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=headless)
    assert result.returncode == 0, result.stderr
    path, length = result.stdout.split()[-2:]
    film = read(Path(path))
    assert len(film) == int(length) + 1
    assert film[0].shape == (400, 600, 3)
    assert film[0].min() < 40 < 235 < film[0].max()  # a dark cart on a white ground
