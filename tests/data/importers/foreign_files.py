"""Small data sets in other people's layouts, written by other libraries than those that read them.

Protocol Buffers and CRCs by Google's packages, run lengths by pycocotools, PNG by pillow, videos by imageio, HDF5 by
h5py; layouts as the sources in `docs/importing.md` have them.
"""

import functools
import io
import json
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import h5py
import imageio.v3 as iio
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image
from pycocotools import mask as coco

BLACK_AND_WHITE = np.arange(256, dtype=np.uint8).repeat(3)


def png(array: np.ndarray, mode: str | None = None, **options: Any) -> bytes:
    """A PNG; mode P takes the array as palette indices."""
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(list(np.random.default_rng(1).integers(0, 256, 768)))
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def jpeg(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG")
    return stream.getvalue()


def moving_squares(rng: np.random.Generator, num: int, frames: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Textured videos in which objects are squares that hide at times: frames, masks and centres (x, y) in pixels."""
    start, step = rng.integers(3, min(height, width) - 12, (num, 2)), rng.integers(0, 2, (num, 2))
    video = np.broadcast_to(rng.integers(0, 60, (height, width, 3)), (frames, height, width, 3)).astype(np.uint8)
    masks = np.zeros((frames, height, width), np.uint8)
    centers = np.zeros((frames, num, 2))
    for t in range(frames):
        for n in range(num):
            x, y = start[n] + t * step[n]
            centers[t, n] = x + 2, y + 2
            if rng.random() < 0.2:
                continue  # hidden
            masks[t, y : y + 4, x : x + 4] = n + 1
            video[t, y : y + 4, x : x + 4] = (200, 20 * n, 255 - 30 * n)
    return {"frames": video, "masks": masks, "centers": centers}


# --- MOVi ----------------------------------------------------------------------------------------------------


@functools.cache
def example_class() -> Any:
    """`tf.train.Example`, from the text of TensorFlow's example.proto and feature.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(parent: Any, name: str, *fields: tuple[str, int, Any, str | None, bool]) -> Any:
        made = parent.add(name=name)
        for label, number, kind, type_name, repeated in fields:
            made.field.add(
                name=label,
                number=number,
                type=kind,
                type_name=type_name,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            )
        return made

    message(file.message_type, "BytesList", ("value", 1, kinds.TYPE_BYTES, None, True))
    message(file.message_type, "FloatList", ("value", 1, kinds.TYPE_FLOAT, None, True))
    message(file.message_type, "Int64List", ("value", 1, kinds.TYPE_INT64, None, True))
    lists = (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List"))
    feature = message(
        file.message_type,
        "Feature",
        *((label, i, kinds.TYPE_MESSAGE, f".t.{kind}", False) for i, (label, kind) in enumerate(lists, 1)),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    entry = ".t.Features.FeatureEntry"
    features = message(file.message_type, "Features", ("feature", 1, kinds.TYPE_MESSAGE, entry, True))
    pair = message(
        features.nested_type,
        "FeatureEntry",
        ("key", 1, kinds.TYPE_STRING, None, False),
        ("value", 2, kinds.TYPE_MESSAGE, ".t.Feature", False),
    )
    pair.options.map_entry = True
    message(file.message_type, "Example", ("features", 1, kinds.TYPE_MESSAGE, ".t.Features", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def example(features: dict[str, Any]) -> bytes:
    """A serialised Example, as `tensorflow_datasets` builds it from arrays and lists of bytes."""
    made = example_class()()
    for name, values in features.items():
        feature = made.features.feature[name]
        if isinstance(values, list):
            feature.bytes_list.value.extend(values)
        elif values.dtype.kind == "f":
            feature.float_list.value.extend(values.ravel().tolist())
        else:
            feature.int64_list.value.extend(values.ravel().tolist())
    return made.SerializeToString()


def masked_crc(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def write_tfrecord(path: Path, messages: list[bytes]) -> Path:
    with path.open("wb") as stream:
        for content in messages:
            header = struct.pack("<Q", len(content))
            stream.write(header + struct.pack("<I", masked_crc(header)))
            stream.write(content + struct.pack("<I", masked_crc(content)))
    return path


def movi_features(rng: np.random.Generator, num: int, frames: int, size: int, variant: str) -> dict[str, Any]:
    """All features of one scene, as `movi_a.py` (variant a) and `movi_e.py` (variant e) declare them."""
    scene = moving_squares(rng, num, frames, size, size)
    visible = [np.flatnonzero((scene["masks"] == n + 1).any(axis=(1, 2))) for n in range(num)]
    boxes = []
    for n, steps in enumerate(visible):
        for t in steps:
            rows, columns = np.nonzero(scene["masks"][t] == n + 1)
            boxes.append([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    instances = {
        "mass": floats(num),
        "friction": floats(num),
        "restitution": floats(num),
        "positions": floats(num, frames, 3),
        "quaternions": floats(num, frames, 4),
        "velocities": floats(num, frames, 3),
        "angular_velocities": floats(num, frames, 3),
        "bboxes_3d": floats(num, frames, 8, 3),
        "image_positions": (scene["centers"] / size).astype(np.float32).transpose(1, 0, 2),
        "bboxes/ragged_flat_values": (np.array(boxes) / size).astype(np.float32),
        "bboxes/ragged_row_lengths_0": np.array([len(steps) for steps in visible]),
        "bbox_frames/ragged_flat_values": np.concatenate(visible),
        "bbox_frames/ragged_row_lengths_0": np.array([len(steps) for steps in visible]),
        "visibility": np.array([(scene["masks"] == n + 1).sum(axis=(1, 2)) for n in range(num)]),
    }
    if variant == "a":
        instances |= {
            "shape_label": rng.integers(0, 3, num),
            "size_label": rng.integers(0, 2, num),
            "color": rng.random((num, 3)).astype(np.float32),
            "color_label": rng.integers(0, 8, num),
            "material_label": rng.integers(0, 2, num),
        }
    else:
        instances |= {
            "asset_id": [f"asset {n}".encode() for n in range(num)],
            "category": rng.integers(0, 17, num),
            "scale": floats(num),
            "is_dynamic": rng.integers(0, 2, num),
        }
    depth = rng.integers(0, 65536, (frames, size, size)).astype(np.uint16)
    return {
        "metadata/video_name": [b"0001"],
        "metadata/width": np.array([size]),
        "metadata/height": np.array([size]),
        "metadata/num_frames": np.array([frames]),
        "metadata/num_instances": np.array([num]),
        "metadata/depth_range": np.array([2.5, 9.25], np.float32),
        "metadata/forward_flow_range": np.array([-3.0, 4.0], np.float32),
        "camera/focal_length": np.array([35.0], np.float32),
        "camera/sensor_width": np.array([32.0], np.float32),
        "camera/field_of_view": np.array([0.857], np.float32),
        "camera/positions": floats(frames, 3),
        "camera/quaternions": floats(frames, 4),
        "events/collisions/frame": np.array([-1, 0, 7]),
        "events/collisions/instances": np.array([0, 65535, 1, 2, 0, 1]),
        "video": [png(frame) for frame in scene["frames"]],
        "segmentations": [png(mask) for mask in scene["masks"]],
        "depth": [png(layer) for layer in depth],
        "forward_flow": rng.integers(0, 65536, (frames, size, size, 2)),
        **{f"instances/{name}": values for name, values in instances.items()},
        "_frames": scene["frames"],
        "_masks": scene["masks"],
        "_depth": depth,
    }


def write_movi(
    folder: Path, splits: dict[str, list[int]], variant: str = "a", frames: int = 5, size: int = 32, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Shards (so many records each) of the splits with their dataset_info.json; gives the features of each record."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, list[dict[str, Any]]] = {}
    for split, shards in splits.items():
        for index, count in enumerate(shards):
            scenes = [movi_features(rng, int(rng.integers(1, 5)), frames, size, variant) for _ in range(count)]
            made.setdefault(split, []).extend(scenes)
            public = [{k: v for k, v in scene.items() if not k.startswith("_")} for scene in scenes]
            name = f"movi_{variant}-{split}.tfrecord-{index:05d}-of-{len(shards):05d}"
            write_tfrecord(folder / name, [example(scene) for scene in public])
    info = [{"name": split, "shardLengths": [str(count) for count in shards]} for split, shards in splits.items()]
    (folder / "dataset_info.json").write_text(json.dumps({"name": f"movi_{variant}", "splits": info}))
    return made


# --- videos --------------------------------------------------------------------------------------------------


def write_video(path: Path, frames: np.ndarray) -> None:
    """H.264 in .mp4, JPEG frames in .avi, of high quality; both are lossy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, more = ("libx264", ["-crf", "4"]) if path.suffix == ".mp4" else ("mjpeg", ["-q:v", "2"])
    iio.imwrite(path, frames, plugin="FFMPEG", fps=24, codec=codec, macro_block_size=2, output_params=more)


def smooth_video(rng: np.random.Generator, frames: int, height: int, width: int) -> np.ndarray:
    """Slow waves of colour, which survive compression well."""
    y, x, t = np.mgrid[:height, :width, :frames].astype(float)
    phases = rng.uniform(0, 6, 3)
    waves = [np.sin(x / 25 + t / 2 + phase) + np.cos(y / 20 - t / 3 + phase) for phase in phases]
    return (128 + 60 * np.stack(waves, axis=-1)).astype(np.uint8).transpose(2, 0, 1, 3)


# --- CATER ---------------------------------------------------------------------------------------------------

CATER_CAMERA = np.array(
    [
        [1.4503, 1.6376, 0.0, -0.0251],
        [-1.0346, 0.9163, 2.5685, 0.0095],
        [-0.6606, 0.5850, -0.4748, 10.5666],
        [-0.6592, 0.5839, -0.4738, 10.7452],
    ]
)


def cater_pixel(point: list[float], width: int, height: int) -> tuple[float, float]:
    """A point in the frame, as CATER's tracking baseline projects it."""
    clip = CATER_CAMERA @ np.array([*point, 1.0])
    return (clip[0] / clip[3] + 1) * width / 2, (-clip[1] / clip[3] + 1) * height / 2


def write_cater(folder: Path, num: int = 5, frames: int = 7, lists: bool = True, seed: int = 0) -> dict[str, Any]:
    """Videos of 64 x 48 px with scenes; locations count one more step than `frames - 1`."""
    rng = np.random.default_rng(seed)
    made = {}
    for index in range(num):
        name = f"CATER_new_{index:06d}"
        things = []
        for n in range(int(rng.integers(3, 6))):
            path = rng.uniform(-3, 3, 3) * (1, 1, 0) + (0, 0, 0.35) + np.cumsum(rng.normal(0, 0.1, (frames, 3)), axis=0)
            shape = "spl" if n == 0 else str(rng.choice(["cone", "cube", "sphere", "cylinder"]))
            pixel = cater_pixel(path[0].tolist(), 64, 48)
            things.append(
                {
                    "shape": shape,
                    "size": str(rng.choice(["small", "medium", "large"])),
                    "sized": 0.3,
                    "material": str(rng.choice(["metal", "rubber"])),
                    "color": "gold" if n == 0 else str(rng.choice(["red", "cyan", "gray"])),
                    "instance": f"{shape}_{n}",
                    "rotation": 12.0,
                    "3d_coords": path[0].tolist(),
                    "pixel_coords": [round(pixel[0]), round(pixel[1]), 10.5],
                    "locations": {str(t): path[t].tolist() for t in range(frames)},
                }
            )
        scene = {"split": "new", "image_index": index, "objects": things, "movements": {}}
        (folder / "scenes").mkdir(parents=True, exist_ok=True)
        (folder / "scenes" / f"{name}.json").write_text(json.dumps(scene))
        video = smooth_video(rng, frames, 48, 64)
        write_video(folder / "videos" / f"{name}.avi", video)
        made[name] = {"scene": scene, "frames": video, "cell": int(rng.integers(0, 36))}
    if lists:
        for split, names in (("train", list(made)[:-2]), ("val", list(made)[-2:])):
            path = folder / "lists" / "localize" / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{name}.avi {made[name]['cell']}\n" for name in names))
    return made


# --- CLEVRER -------------------------------------------------------------------------------------------------


def write_clevrer(folder: Path, numbers: list[int], seed: int = 0, annotated: bool = True) -> dict[int, dict[str, Any]]:
    """Videos of 128 frames of 48 x 32 px with annotations and proposals."""
    rng = np.random.default_rng(seed)
    made = {}
    for number in numbers:
        split = "train" if number < 10_000 else "validation" if number < 15_000 else "test"
        thousand = f"{number // 1000 * 1000:05d}-{number // 1000 * 1000 + 1000:05d}"
        num = int(rng.integers(2, 5))
        video = smooth_video(rng, 128, 32, 48)
        write_video(folder / f"video_{split}" / f"video_{thousand}" / f"video_{number:05d}.mp4", video)
        motion = rng.normal(size=(128, num, 4, 3))
        inside = rng.random((128, num)) < 0.7
        ids = rng.permutation(num)  # the list of properties need not be in the order of ids
        annotation = {
            "scene_index": number,
            "video_filename": f"video_{number:05d}.mp4",
            "object_property": [
                {
                    "object_id": int(i),
                    "color": str(rng.choice(["gray", "purple", "yellow"])),
                    "material": str(rng.choice(["metal", "rubber"])),
                    "shape": str(rng.choice(["cube", "sphere", "cylinder"])),
                }
                for i in ids
            ],
            "motion_trajectory": [
                {
                    "frame_id": t,
                    "objects": [
                        {
                            "object_id": n,
                            "location": motion[t, n, 0].tolist(),
                            "orientation": motion[t, n, 1].tolist(),
                            "velocity": motion[t, n, 2].tolist(),
                            "angular_velocity": motion[t, n, 3].tolist(),
                            "inside_camera_view": bool(inside[t, n]),
                        }
                        for n in range(num)
                    ],
                }
                for t in range(128)
            ],
            "collision": [{"object_ids": [0, 1], "frame_id": 5, "location": [0.0, 0.0, 0.1]}],
        }
        masks = [rng.random((int(rng.integers(0, 4)), 32, 48)) < 0.2 for _ in range(128)]
        scores = [rng.permutation(len(layer)) / 10 + 0.5 for layer in masks]
        frames = []
        for t in range(128):
            if t == 3:
                continue  # a frame that the parser skipped
            encoded = [coco.encode(np.asfortranarray(layer.astype(np.uint8))) for layer in masks[t]]
            objects = [
                {
                    "mask": {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()},
                    "score": float(score),
                    "color": "red",
                    "material": "metal",
                    "shape": "cube",
                }
                for code, score in zip(encoded, scores[t], strict=True)
            ]
            frames.append({"frame_index": t, "frame_filename": f"sim_{number:05d}/{t}.png", "objects": objects})
        proposals = folder / "processed_proposals"
        proposals.mkdir(parents=True, exist_ok=True)
        document = {"video_index": number, "video_name": f"sim_{number:05d}", "frames": frames}
        (proposals / f"sim_{number:05d}.json").write_text(json.dumps(document))
        if annotated:
            place = folder / f"annotation_{split}" / f"annotation_{thousand}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"annotation_{number:05d}.json").write_text(json.dumps(annotation))
        made[number] = {
            "frames": video,
            "motion": motion,
            "inside": inside,
            "annotation": annotation,
            "masks": masks,
            "scores": scores,
        }
    return made


# --- R-NEM ---------------------------------------------------------------------------------------------------


def write_rnem(path: Path, counts: dict[str, int], frames: int = 51, size: int = 64, seed: int = 0) -> dict[str, Any]:
    """White discs in a box of ten units that start apart, fly straight and may leave; time-major, float32.

    A pixel is white if its corner towards the origin is in a disc, as in Sutskever's code.
    """
    rng = np.random.default_rng(seed)
    grid = np.arange(size) * 10 / size
    made = {}
    with h5py.File(path, "w") as file:
        for group, num in counts.items():
            start = np.array([[2, 2.5], [7.3, 2.2], [4.9, 7.1]]) + rng.uniform(-0.4, 0.4, (num, 3, 2))
            step = rng.uniform(-0.03, 0.03, (num, 3, 2))
            positions = np.stack([start + t * step for t in range(frames)])
            away_x = grid[None, :] - positions[..., 0, None, None]
            away_y = grid[:, None] - positions[..., 1, None, None]
            inside = away_x**2 + away_y**2 < 0.9**2
            groups = np.zeros((frames, num, size, size), np.float32)
            for n in range(3):
                groups[inside[:, :, n]] = n + 1
            arrays = {
                "features": (groups > 0).astype(np.float32)[..., None],
                "groups": groups[..., None],
                "positions": positions.astype(np.float32),
                "velocities": np.broadcast_to(step, positions.shape).astype(np.float32),
                "collisions": np.zeros((frames, num, 1), np.float32),
            }
            for name, array in arrays.items():
                file[f"{group}/{name}"] = array
            made[group] = arrays
    return made
