"""The README's walk-through of own data: from a folder of videos, two tables and a recipe to an answer."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from colour_data import SMALL, write_colour_data
from running import Clipbert, as_options

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_a_folder_and_a_table_become_an_answer(clipbert: Clipbert, tmp_path: Path) -> None:
    write_colour_data(tmp_path / "made")
    folder = tmp_path / "pets"
    shutil.copytree(tmp_path / "made" / "vis_db" / "msrvtt", folder / "videos")
    shutil.copy(tmp_path / "made" / "vocab.txt", folder)
    recipe, heading = re.search(r"\n```\n(extends: msrvtt_qa\n.*?)```", README, re.DOTALL), "file,asked,said"
    assert recipe is not None
    assert f"```\n{heading}\n" in README
    (folder / "pets.yaml").write_text(recipe[1])
    for split in ("train", "val"):
        files = sorted(path.stem for path in (folder / "videos").glob(f"{split}_*"))
        rows = [f"{name},what color is the thing ?,{name.rpartition('_')[2]}" for name in files]
        (folder / f"{split}.csv").write_text("\n".join([heading, *rows]) + "\n")
    colours = sorted({path.stem.rpartition("_")[2] for path in (folder / "videos").iterdir()})
    (folder / "answers.json").write_text(json.dumps(colours))
    settings = as_options([*SMALL, "data.num_clips=1", "data.num_frames=1", "train.epochs=15"])
    done = clipbert("finetune", "--recipe", "pets.yaml", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    asked = ["--video", "videos/test_0_red.mp4", "what color is the thing ?", "--json"]
    done = clipbert("ask", "--run", "runs/pets", *asked, cwd=folder)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert answer["answer"] in colours
