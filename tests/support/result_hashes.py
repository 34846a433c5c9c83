"""Print the sha256 of the pixels of twelve small jobs, to show that a change of structure leaves results as they are.

    python tests/support/result_hashes.py FOLDER > before.txt

Run it in both trees with the same FOLDER (inputs and tiny checkpoints are made there once) on the same machine.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLE = Path("blender_addon/examples/cobbles.png")
REGIONS = Path("blender_addon/examples/cobbles_regions.png")


def inputs(folder: Path) -> None:
    """A layout, a content picture and a swatch with courses, each made once."""
    folder.mkdir(parents=True, exist_ok=True)
    colors = [color for _, color in sorted(Image.open(REGIONS).convert("RGB").getcolors(), reverse=True)]
    y, x = np.mgrid[0:192, 0:256]
    disc = (y - 96) ** 2 + (x - 128) ** 2 < 60**2
    Image.fromarray(np.where(disc[..., None], *(np.array(c, np.uint8) for c in colors[:2]))).save(folder / "layout.png")
    ramp = np.stack([x, 255 - x, y + 30], -1).astype(np.uint8)
    ramp[disc] //= 2
    Image.fromarray(ramp).save(folder / "content.png")
    rows = np.random.default_rng(0).normal(128, 18, (200, 232, 3))
    rows[(np.arange(200) % 23) < 4] -= 70
    Image.fromarray(rows.clip(0, 255).astype(np.uint8)).save(folder / "courses.png")


def jobs(folder: Path) -> dict[str, list[str]]:
    swatch, small = str(EXAMPLE), str(folder / "courses.png")
    layout = ["--regions", str(REGIONS), "--layout", str(folder / "layout.png")]
    content = str(folder / "content.png")
    sd = ["--model", str(folder / "sd15"), "--steps", "2", "--size", "128x128", "--detail", "off"]
    return {
        "tile-xy": ["synthesize", swatch, "--size", "256x192"],
        "tile-x": ["synthesize", swatch, "--size", "192x256", "--tile", "x", "--seed", "3"],
        "no-tile": ["synthesize", swatch, "--size", "192x200", "--tile", "none", "--preset", "draft"],
        "scaled-even": ["synthesize", small, "--size", "256x256", "--scale", "0.8", "--even-light", "0.7"],
        "layout": ["synthesize", swatch, *layout, "--size", "256x192"],
        "fill-sample": ["synthesize", swatch, "--start", "fill", "--method", "sample", "--size", "128x128"],
        "noise-decoder": ["synthesize", small, "--start", "noise", "--detail", "both", "--size", "128x128"],
        "restyle": ["restyle", content, swatch],
        "restyle-preview": ["restyle", content, swatch, "--method", "preview", "--steps", "3", "--tile", "none"],
        "sd15": ["synthesize", small, *sd],
        "sd15-layout": ["synthesize", swatch, *layout, *sd, "--method", "sample"],
        "sd15-restyle": ["restyle", content, small, *sd],
    }


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    if not (folder / "layout.png").exists():
        inputs(folder)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    for name, arguments in jobs(folder).items():
        if "--scale" not in arguments:
            arguments += ["--scale", "1"]  # the default fits the swatch to the result
        out = folder / f"result-{name}.png"
        command = [
            sys.executable,
            "-m",
            "ad_service",
            *arguments,
            "--out",
            str(out),
            "--data-dir",
            str(folder / "data"),
        ]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            print(name, "FAILED", done.stderr.strip().splitlines()[-1:], flush=True)
            continue
        print(name, hashlib.sha256(np.asarray(Image.open(out)).tobytes()).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
