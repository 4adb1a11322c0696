"""Film three tuned examples before and after training, side by side: `docs/assets/policies.gif`, the README's picture.

    python docs/make_film.py

Above, policies as they were initialised; below, the same after their example's timesteps. Takes less than a minute.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from PIL import Image

from athlete import tuned_examples
from athlete.algorithm import Algorithm
from athlete.algorithms import get_config_class

EXAMPLES = ("cartpole-ppo", "acrobot-ppo", "pendulum-ppo")
SEED = 1000
EPISODE = 4  # seed of the filmed episodes: one in which the pendulum hangs at first
SIZE = 140  # pixels, of a picture's height and width
SECONDS, FRAMES_PER_SECOND = 6, 10
COLORS = 16


def film(algo: Algorithm) -> np.ndarray:
    """Pictures `[frames, SIZE, SIZE, 3]` of an episode; its last one stays where it is shorter than the film."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = algo.record_video(folder, seed=EPISODE)
        fps = imageio.immeta(path)["fps"]
        frames = imageio.imread(path)
    wanted = (np.arange(SECONDS * FRAMES_PER_SECOND) * fps / FRAMES_PER_SECOND).astype(int)
    return np.stack([smaller(frames[min(index, len(frames) - 1)]) for index in wanted])


def smaller(frame: np.ndarray) -> np.ndarray:
    """The middle of a picture, as a square."""
    edge = min(frame.shape[:2])
    top, left = ((length - edge) // 2 for length in frame.shape[:2])
    square = Image.fromarray(frame[top : top + edge, left : left + edge])
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BOX))


def before_and_after(name: str) -> np.ndarray:
    """An example untrained above and trained below, `[frames, 2 SIZE, SIZE, 3]`."""
    example = tuned_examples.load(name)
    with get_config_class(example.run).from_dict({**example.config, "seed": SEED}).build() as algo:
        before = film(algo)
        while algo.train()["timesteps_total"] < example.stop["timesteps_total"]:
            pass
        return np.concatenate([before, film(algo)], axis=1)


def main() -> None:
    frames = np.concatenate([before_and_after(name) for name in EXAMPLES], axis=2)
    pictures = [Image.fromarray(frame).quantize(COLORS, dither=Image.Dither.NONE) for frame in frames]
    path = Path(__file__).parent / "assets" / "policies.gif"
    duration = 1000 // FRAMES_PER_SECOND
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
