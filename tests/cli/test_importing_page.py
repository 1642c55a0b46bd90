"""Every command of docs/importing.md on small sources in the layouts that the page names."""

import importlib.util
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_pages import PAGES, blocks, commands, in_small

from slotssm.data.importers import KINDS

IMPORTERS = Path(__file__).parent.parent / "data" / "importers"


def load(name):
    spec = importlib.util.spec_from_file_location(name, IMPORTERS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_davis(workplace, files, scenes):
    """Four videos with masks in folders of images; gives their scenes."""
    made = [scenes.scene(seed, 32) for seed in range(4)]
    root = workplace / "DAVIS"
    for index, one in enumerate(made):
        for t in range(32):
            scenes.put(root / "JPEGImages" / "480p" / f"v{index}" / f"{t:05}.jpg", files.jpeg(one["frames"][t]))
            mask = (one["masks"][t] > 0).astype(np.uint8) * 255
            scenes.put(root / "Annotations" / "480p" / f"v{index}" / f"{t:05}.png", files.png(mask))
    return made


@pytest.fixture
def writers(monkeypatch):
    """The modules that write files as others do."""
    for name in ("foreign_files", "foreign_scenes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return load("foreign_files"), load("foreign_scenes")


@pytest.fixture
def sources(workplace, writers):
    """What the commands of the page import."""
    files, scenes = writers
    rng = np.random.default_rng(0)
    files.write_movi(workplace / "movi_a" / "128x128" / "1.0.0", {"train": [3, 2], "validation": [2]}, size=32)
    files.write_cater(workplace / "max2action", 5, frames=290)
    files.write_clevrer(workplace / "CLEVRER", [0, 1, 10_000])
    files.write_rnem(workplace / "balls4mass64.h5", {"training": 3, "validation": 1, "test": 1}, frames=8, size=32)
    some = [scenes.multi_object_scene(rng, num, 11, (240, 320)) for num in (3, 8, 6, 2)]
    scenes.write_multi_object(workplace / "clevr_with_masks_train.tfrecords", some)
    made = write_davis(workplace, files, scenes)
    scenes.write_tum(workplace / "rgbd_dataset_freiburg1_desk", made[0])
    for index in range(4):
        scenes.write_kubric(workplace / "renders" / f"{index}", index, frames=24)
    vis = scenes.write_youtube_vis(workplace / "YouTubeVIS", made)
    images = [{"id": t, "file_name": f"{t}.png", "height": 20, "width": 24} for t in range(4)]
    regions = [{"image_id": t, "segmentation": [[2, 2, 12, 3, 8, 15]], "iscrowd": 0} for t in range(4)]
    for t in range(4):
        scenes.put(workplace / "photos" / f"{t}.png", files.png(made[0]["frames"][t]))
    # the page names both files of annotations alike, which are of different forms
    document = json.loads(vis.read_text()) | {"images": images}
    document["annotations"] += [{**each, "video_id": -1, "segmentations": []} for each in regions]
    for each in document["annotations"]:
        each.setdefault("image_id", -1)
        each.setdefault("segmentation", [])
    (workplace / "instances.json").write_text(json.dumps(document))
    for index in range(40):
        files.write_video(workplace / "clips" / f"{index}.mp4", files.smooth_video(rng, 3, 32, 32))


@pytest.mark.slow
def test_the_commands_of_the_page(slotssm, sources, workplace):
    found = [
        words
        for block in blocks(PAGES["importing.md"])
        if block.language == "console"
        for words in commands(block.code)
    ]
    assert {words[2] for words in found if words[1] == "import"} == set(KINDS)
    for _, *words in found:
        done = slotssm(*in_small(words))
        assert done.code == 0, f"slotssm {' '.join(words)}: {done.err}"
    with h5py.File(workplace / "data" / "clevr6.h5") as file:
        assert sum(len(file[split]["frames"]) for split in ("train", "val", "test") if split in file) == 3
    with h5py.File(workplace / "data" / "folder-DAVIS.h5") as file:
        assert file["train/masks"].shape[1:] == (12, 128, 128)


@pytest.mark.parametrize("kind", ["cater", "folder"])
def test_a_dry_run_at_another_size_tells_what_it_would_write(slotssm, writers, workplace, kind):
    files, scenes = writers
    if kind == "cater":
        files.write_cater(workplace / "max2action", 5, frames=290)
        source, more = "max2action", ()
    else:
        write_davis(workplace, files, scenes)
        source, more = "DAVIS", ("--binary-masks", "--clip-len", "8")
    done = slotssm("import", kind, source, "--size", "16", "--dry-run", "--json", *more)
    assert done.code == 0, done.err
    assert json.loads(done.out)["stored_bytes"] > 0
    assert not (workplace / "data").exists()
