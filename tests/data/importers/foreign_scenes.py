"""Small image sets, RGB-D sequences and scenes in other people's layouts, written by other libraries.

Pictures by pillow, run lengths by pycocotools, TFRecords by Google's packages and gzip; layouts as the sources in
`docs/importing.md` have them.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from foreign_files import example, moving_squares, png, write_tfrecord
from PIL import Image
from pycocotools import mask as coco

SIZE = (20, 24)


def scene(seed: int, frames: int = 6, num: int = 3) -> dict[str, np.ndarray]:
    """Frames, masks, and depth in whole millimetres, 0 where not measured."""
    rng = np.random.default_rng(seed)
    made = moving_squares(rng, num, frames, *SIZE)
    depth = rng.integers(400, 60_000, (frames, *SIZE)).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.2] = 0
    return {**made, "depth": depth}


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- RGB-D ---------------------------------------------------------------------------------------------------


def write_tum(folder: Path, made: dict[str, np.ndarray], late_s: float = 0.01, lost: tuple[int, ...] = ()) -> Path:
    """Timestamped lists; depth comes `late_s` later, and that of some frames is lost."""
    lists: dict[str, list[str]] = {"rgb": ["# color images", "# timestamp filename"], "depth": ["# depth maps"]}
    for t in range(len(made["frames"])):
        for kind, array, late in (("rgb", made["frames"], 0.0), ("depth", made["depth"], late_s)):
            time = 1305031102.175 + t / 30 + late
            if kind == "depth" and t in lost:
                continue
            name = f"{kind}/{time:.6f}.png"
            put(folder / name, png(array[t]))
            lists[kind].append(f"{time:.6f} {name}")
    for kind, lines in lists.items():
        (folder / f"{kind}.txt").write_text("\n".join(lines) + "\n")
    (folder / "groundtruth.txt").write_text("# timestamp tx ty tz qx qy qz qw\n")
    return folder


def write_dotted(folder: Path, made: dict[str, np.ndarray]) -> Path:
    """7-Scenes and 3DMatch."""
    for t in range(len(made["frames"])):
        put(folder / f"frame-{t:06d}.color.png", png(made["frames"][t]))
        put(folder / f"frame-{t:06d}.depth.png", png(made["depth"][t]))
        put(folder / f"frame-{t:06d}.pose.txt", b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    return folder


def write_kitti(folder: Path, made: dict[str, np.ndarray]) -> Path:
    """KITTI's raw frames with the depth of the depth completion benchmark, which leaves out the first and last."""
    for t in range(len(made["frames"])):
        put(folder / "image_02" / "data" / f"{t:010d}.png", png(made["frames"][t]))
        put(folder / "image_03" / "data" / f"{t:010d}.png", png(made["frames"][t][:, ::-1]))
        if 0 < t < len(made["frames"]) - 1:
            put(folder / "proj_depth" / "groundtruth" / "image_02" / f"{t:010d}.png", png(made["depth"][t]))
    return folder


def write_scannet(folder: Path, made: dict[str, np.ndarray], color: str = "color") -> Path:
    for t in range(len(made["frames"])):
        put(folder / color / f"{t}.png", png(made["frames"][t]))
        put(folder / "depth" / f"{t}.png", png(made["depth"][t]))
        put(folder / "pose" / f"{t}.txt", b"1 0 0 0\n")
    return folder


# --- annotations ---------------------------------------------------------------------------------------------


def encoded(mask: np.ndarray) -> dict[str, Any]:
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()}


def write_youtube_vis(folder: Path, scenes: list[dict[str, np.ndarray]], every: int = 1) -> Path:
    """Frames below JPEGImages (as PNG, so that they can be compared), and regions as run lengths or null."""
    videos, annotations = [], []
    for index, made in enumerate(scenes):
        name = f"video{index}"
        for t, frame in enumerate(made["frames"]):
            put(folder / "JPEGImages" / name / f"{t:05d}.png", png(frame))
        shown = range(0, len(made["frames"]), every)
        videos.append(
            {
                "id": index + 1,
                "height": SIZE[0],
                "width": SIZE[1],
                "length": len(shown),
                "file_names": [f"{name}/{t:05d}.jpg" for t in shown],
            }
        )
        for number in range(1, int(made["masks"].max()) + 1):
            regions = [made["masks"][t] == number for t in shown]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "video_id": index + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "segmentations": [encoded(region) if region.any() else None for region in regions],
                }
            )
    document = {"videos": videos, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    return put(folder / "instances.json", json.dumps(document).encode())


# --- image sets ----------------------------------------------------------------------------------------------


def multi_object_scene(rng: np.random.Generator, num: int, most: int, size: tuple[int, int]) -> dict[str, Any]:
    """One scene of CLEVR with masks: background first, absent objects last, all entities with all factors."""
    owner = rng.integers(0, num + 1, size)
    masks = np.stack([(owner == n) * 255 for n in range(most)]).astype(np.uint8)
    there = np.arange(most) <= num
    codes = {name: np.where(there, rng.integers(1, 4, most), 0).astype(np.uint8) for name in ("shape", "material")}
    codes["shape"][0] = codes["material"][0] = 0
    return {
        "image": rng.integers(0, 256, (*size, 3)).astype(np.uint8),
        "mask": masks[..., None],
        "owner": owner,
        "x": rng.normal(size=most).astype(np.float32),
        "visibility": there.astype(np.float32),
        **codes,
    }


def write_multi_object(path: Path, scenes: list[dict[str, Any]], compressed: bool = True) -> Path:
    """Bytes as strings of one byte each, as TensorFlow's `FixedLenFeature(shape, tf.string)` reads them."""
    messages = []
    for made in scenes:
        features: dict[str, Any] = {
            name: [bytes([value]) for value in made[name].ravel()] for name in ("image", "mask", "shape", "material")
        }
        messages.append(example(features | {name: made[name] for name in ("x", "visibility")}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tfrecord(path, messages)
    if compressed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


# --- Kubric --------------------------------------------------------------------------------------------------


def write_kubric(folder: Path, seed: int = 0, frames: int = 6, num: int = 2) -> dict[str, Any]:
    """The output of a worker: layers as `kubric.file_io` writes them, and `metadata.json`."""
    rng = np.random.default_rng(seed)
    made = moving_squares(rng, num, frames, *SIZE)
    distance = rng.uniform(2, 9, (frames, *SIZE)).astype(np.float32)
    turn = rng.normal(size=(frames, 4))
    instances = [
        {
            "asset_id": f"asset{n}",
            "mass": float(rng.uniform()),
            "positions": rng.normal(size=(frames, 3)).tolist(),
            "velocities": rng.normal(size=(frames, 3)).tolist(),
            "image_positions": (made["centers"][:, n] / SIZE[::-1]).tolist(),
            "visibility": [int((layer == n + 1).sum()) for layer in made["masks"]],
            "bboxes_3d": rng.normal(size=(frames, 8, 3)).tolist(),
        }
        for n in range(num)
    ]
    document = {
        "metadata": {"num_frames": frames, "resolution": SIZE[::-1]},
        "camera": {
            "focal_length": 35.0,
            "sensor_width": 32.0,
            "positions": rng.normal(size=(frames, 3)).tolist(),
            "quaternions": turn.tolist(),
        },
        "instances": instances,
    }
    for t in range(frames):
        alpha = np.full((*SIZE, 1), 255, np.uint8)
        alpha[:3] = 0  # above the horizon
        put(folder / f"rgba_{t:05d}.png", png(np.concatenate([made["frames"][t], alpha], axis=-1)))
        put(folder / f"segmentation_{t:05d}.png", png(made["masks"][t], "P"))
        Image.fromarray(distance[t]).save(folder / f"depth_{t:05d}.tiff")
    (folder / "metadata.json").write_text(json.dumps(document))
    return {**made, "distance": distance, "document": document}
