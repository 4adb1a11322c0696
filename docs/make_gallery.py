"""Film tuned examples for the gallery: `docs/assets/films/NAME.webp`.

    python docs/make_gallery.py [NAME ...]

Each example trains for its timesteps on the seed 1000, as its first published curve, and plays an episode greedily.
Without names all of `docs/gallery.md` are made, which takes some minutes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from PIL import Image

from athlete import tuned_examples
from athlete.algorithms import get_config_class

DOCS = Path(__file__).parent
FILMS = DOCS / "assets" / "films"
SEED = 1000
SIZE = 300  # pixels, of the longer side
SECONDS, FRAMES_PER_SECOND = 8, 15


def names() -> list[str]:
    """The examples that the gallery shows."""
    return re.findall(r"assets/films/([\w-]+)\.webp", (DOCS / "gallery.md").read_text(encoding="utf-8"))


def film(name: str) -> tuple[list[Image.Image], float]:
    """An example trained and filmed: an episode, or its beginning, in small pictures, and how many a second."""
    example = tuned_examples.load(name)
    settings = {**example.config, "seed": SEED, "logdir": False}
    with get_config_class(example.run).from_dict(settings).build() as algo, tempfile.TemporaryDirectory() as folder:
        while algo.train()["timesteps_total"] < example.stop["timesteps_total"]:
            pass
        (path,) = algo.record_video(folder, seed=SEED)
        fps, frames = imageio.immeta(path)["fps"], imageio.imread(path)
    rate = min(fps, FRAMES_PER_SECOND)
    wanted = (np.arange(int(SECONDS * rate)) * fps / rate).astype(int)
    return [smaller(frames[index]) for index in wanted if index < len(frames)], rate


def smaller(frame: np.ndarray) -> Image.Image:
    picture = Image.fromarray(frame)
    scale = SIZE / max(picture.size)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BOX)


def main() -> None:
    FILMS.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or names():
        pictures, rate = film(name)
        path, duration = FILMS / f"{name}.webp", round(1000 / rate)
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0, quality=50)
        print(f"{path}: {path.stat().st_size / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
