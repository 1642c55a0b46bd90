"""Every importer names the axes of what it writes, and a property is in time only if it changes."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from foreign_files import moving_squares, png, write_cater, write_clevrer, write_movi, write_rnem
from foreign_scenes import multi_object_scene, scene, write_kubric, write_multi_object, write_scannet

from slotssm.data.episodes import EpisodeFile
from slotssm.data.importers import ImportOptions, import_data
from slotssm.data.spec import read_spec

PICTURE, MOVING = "time height width", "time object"
COMMON = {"frames": f"{PICTURE} channel", "masks": PICTURE}
COUNTED = {"num_objects": ""}


def write_folder(folder: Path) -> Path:
    scene = moving_squares(np.random.default_rng(0), 3, 12, 20, 24)
    for name, pictures in (("frames", scene["frames"]), ("masks", scene["masks"]), ("depth", scene["masks"])):
        (folder / name / "clip").mkdir(parents=True)
        for index, picture in enumerate(pictures):
            (folder / name / "clip" / f"{index}.png").write_bytes(png(picture))
    return folder


def write_images(folder: Path) -> None:
    made = moving_squares(np.random.default_rng(0), 3, 2, 20, 24)
    for name, pictures in (("images", made["frames"]), ("masks", made["masks"])):
        (folder / name).mkdir(parents=True)
        for index, picture in enumerate(pictures):
            (folder / name / f"{index}.png").write_bytes(png(picture))


def write_rnem_file(folder: Path) -> Path:
    folder.mkdir()
    write_rnem(folder / "r.h5", {"training": 2, "test": 1}, frames=5, size=32)
    return folder / "r.h5"


SOURCES: dict[str, tuple[Callable[[Path], object], dict[str, object], dict[str, str]]] = {
    "movi": (
        lambda folder: write_movi(folder, {"train": [2], "test": [1]}),
        {"depth": True, "size": (16, 16)},
        COMMON
        | COUNTED
        | {"depth": PICTURE, "objects/visible": MOVING, "objects/visibility": MOVING}
        | {"objects/position": f"{MOVING} xy", "objects/bbox": f"{MOVING} ltrb"}
        | {f"objects/{name}": f"{MOVING} xyz" for name in ("world_position", "world_velocity", "angular_velocity")}
        | {"objects/quaternion": f"{MOVING} wxyz", "objects/bbox_3d": f"{MOVING} corner_xyz"}
        | {f"objects/{name}": "object" for name in ("mass", "friction", "restitution")}
        | {f"objects/{name}": "object" for name in ("shape", "size", "color", "material")}
        | {"objects/rgb": "object rgb"}
        | {"camera/position": "time xyz", "camera/rotation": "time xyz axis", "camera/focal_px": "time"},
    ),
    "cater": (
        write_cater,
        {"fixed_camera": True},
        {"frames": COMMON["frames"], "snitch_cell": ""}
        | COUNTED
        | {"objects/world_position": f"{MOVING} xyz", "objects/position": f"{MOVING} xy"}
        | {f"objects/{name}": "object" for name in ("shape", "size", "material", "color")},
    ),
    "clevrer": (
        lambda folder: write_clevrer(folder, [0, 10_000]),
        {"size": (30, 20)},
        COMMON
        | COUNTED
        | {f"objects/{name}": f"{MOVING} xyz" for name in ("world_position", "world_velocity")}
        | {f"objects/{name}": f"{MOVING} xyz" for name in ("orientation", "angular_velocity")}
        | {"objects/inside_view": MOVING}
        | {f"objects/{name}": "object" for name in ("color", "material", "shape")},
    ),
    "rnem": (
        write_rnem_file,
        {},
        COMMON | {"objects/visible": MOVING, "objects/position": f"{MOVING} xy", "objects/velocity": f"{MOVING} xy"},
    ),
    "kubric": (
        write_kubric,
        {"depth": True, "val": 0, "test": 0},
        COMMON
        | COUNTED
        | {"depth": PICTURE, "objects/visibility": MOVING, "objects/position": f"{MOVING} xy", "objects/mass": "object"}
        | {f"objects/{name}": f"{MOVING} xyz" for name in ("world_position", "world_velocity")}
        | {"objects/bbox_3d": f"{MOVING} corner_xyz"}
        | {"camera/position": "time xyz", "camera/rotation": "time xyz axis", "camera/focal_px": "time"},
    ),
    "multi-object": (
        lambda folder: write_multi_object(
            folder / "room.tfrecords", [multi_object_scene(np.random.default_rng(0), 2, 4, (64, 64))]
        ),
        {"val": 0, "test": 0},
        COMMON
        | COUNTED
        | {"objects/visible": MOVING}
        | {f"objects/{name}": "object" for name in ("x", "shape", "material")},
    ),
    "rgbd": (
        lambda folder: write_scannet(folder, scene(0)),
        {"val": 0, "test": 0},
        {"frames": COMMON["frames"], "depth": PICTURE},
    ),
    "images": (write_images, {"val": 0, "test": 0}, COMMON),
    "folder": (write_folder, {"depth": True, "val": 0, "test": 0}, COMMON | {"depth": PICTURE}),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_dataset_names_its_axes(tmp_path: Path, kind: str) -> None:
    make, options, expected = SOURCES[kind]
    made = make(tmp_path / "source")
    src = made if isinstance(made, Path) else tmp_path / "source"
    import_data(src, tmp_path / "d.h5", ImportOptions(kind=kind, **options))
    found, sizes = {}, {}
    with h5py.File(tmp_path / "d.h5") as file:
        split = next(name for name in ("train", "val", "test") if name in file)

        def take(name: str, node: object) -> None:
            if isinstance(node, h5py.Dataset):
                episode, *axes = json.loads(node.attrs["dims"])
                assert episode == "episode"
                found[name] = " ".join(axes)
                for axis, size in zip(axes, node.shape[1:], strict=True):
                    sizes.setdefault(axis, set()).add(size)

        file[split].visititems(take)
    assert found == expected
    # an axis has one length, whatever it belongs to
    assert {axis for axis, lengths in sizes.items() if len(lengths) > 1} == set()
    with EpisodeFile(tmp_path / "d.h5") as episodes:
        spec = read_spec(episodes)
        assert {name: " ".join(field.dims) for name, field in spec.fields.items()} == expected
        assert (spec.has_camera, spec.depth is not None) == (
            kind in ("movi", "kubric"),
            kind in ("movi", "kubric", "rgbd", "folder"),
        )
        assert spec.labels == ({"snitch_cell": 36} if kind == "cater" else {})
        assert (spec.height, spec.width) == (*sizes["height"], *sizes["width"])


def test_every_kind_is_tried() -> None:
    from slotssm.data.importers import KINDS

    assert set(SOURCES) == set(KINDS)
