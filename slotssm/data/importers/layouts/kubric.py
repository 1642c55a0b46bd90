"""What a worker of Kubric (Greff et al. 2022) writes: layers as pictures, and `metadata.json`.

Source of the layout: `kubric/file_io.py` and `challenges/movi/movi_*_worker.py` in google-research/kubric.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.episodes import Episode, Field, Layout, numeric
from slotssm.data.importers.layouts import kubric_camera
from slotssm.data.importers.layouts.movi import INSTANCES
from slotssm.data.importers.readers.layout_errors import layout_errors
from slotssm.data.importers.readers.listing import files_of, found_below, number_in
from slotssm.data.importers.sources.recordings import Recording, RecordingSource, Take
from slotssm.data.importers.sources.source import Survey, pad_objects
from slotssm.data.importers.sources.splitting import SPELLINGS, UNDIVIDED, assign
from slotssm.errors import InputError
from slotssm.files import read_json

METADATA = "metadata.json"


class KubricSource(RecordingSource):
    """One scene, or folders of scenes at any depth."""

    opaque = False  # the alpha of a layer that Kubric writes is left out, as its own data sets do

    def find(self) -> dict[str, list[Recording]]:
        """All folders with `rgba_*.png`."""
        if not self.path.is_dir():
            raise InputError(f"{self.path} is not a folder; name a scene, or the folder of several")
        folders = dict.fromkeys(file.parent for file in found_below(self.path, "rgba_*.png"))
        if not folders:
            raise InputError(f"{self.path} holds no scenes (rgba_00000.png, segmentation_00000.png, {METADATA})")
        found: dict[str, list[Recording]] = {}
        for folder in folders:
            within = folder.relative_to(self.path)
            split = SPELLINGS.get(within.parts[0], UNDIVIDED) if within.parts else UNDIVIDED
            found.setdefault(split, []).append(self._scene(folder, within.as_posix()))
        if UNDIVIDED in found and len(found) > 1:
            raise InputError(f"{self.path} has scenes in and outside of folders of splits; import them apart")
        return assign(found, self.options, str(self.path))

    def _scene(self, folder: Path, name: str) -> Recording:
        if not (folder / METADATA).is_file():
            raise InputError(f"{folder} has no {METADATA}; is it a scene of Kubric?")
        layers = {}
        for layer, suffixes in (("rgba", (".png",)), ("segmentation", (".png",)), ("depth", (".tiff", ".tif"))):
            files = [file for file in files_of(folder, suffixes) if file.stem.startswith(f"{layer}_")]
            layers[layer] = {number_in(file.stem): file for file in files}
        frames = tuple(layers["rgba"].values())
        masks, depth = (
            tuple(layers[layer].get(number) for number in layers["rgba"]) if layers[layer] else None
            for layer in ("segmentation", "depth")
        )
        if self.options.depth and (depth is None or None in depth):
            raise InputError(f"{folder} has no depth_*.tiff for every frame; leave out `depth`")
        return Recording(name, frames, masks, depth if self.options.depth else None)

    def survey(self) -> Survey:
        """Also the largest number of objects, and what is known of them."""
        survey = super().survey()
        found = list(self.each(lambda key: self._instances(key)))
        names = [name for name in INSTANCES if found and all(name in each for _, objects in found for each in objects)]
        num = max((len(objects) for _, objects in found), default=0)
        return survey | {"num_objects": num, "features": names if num else []}

    def _instances(self, key: Take) -> list[Mapping[str, Any]]:
        place = self._metadata(key)
        with layout_errors(str(place)):
            instances = list(_read(place)["instances"])
            total = len(key.recording.frames)  # type: ignore[arg-type]
            for each in instances:
                for name, instance in INSTANCES.items():
                    if name in each and instance.per_frame and len(each[name]) != total:
                        raise ValueError(f"{name} of {len(each[name])} frames, expected {total}")
        return instances

    def _metadata(self, key: Take) -> Path:
        return Path(key.recording.place) / METADATA

    def layout(self, survey: Survey) -> Layout:
        """Fields of the recording, the camera and the objects."""
        fields, num_frames, num = super().layout(survey), survey["num_frames"], survey["num_objects"]
        if self._sees(survey):
            fields |= kubric_camera.fields(num_frames)
        if "depth" in fields:
            depth = fields["depth"]
            fields["depth"] = Field(depth.dims, depth.shape, depth.dtype, image=True, attrs=numeric("world units"))
        fields["num_objects"] = Field((), (), "uint8", attrs=numeric("objects"))
        for name in survey["features"]:
            instance = INSTANCES[name]
            fields[f"objects/{instance.ours}"] = instance.field(num_frames, num, "float32")
        return fields

    def _sees(self, survey: Survey) -> bool:
        """Whether the camera looks at the middle of the written frames, with one focal length for both axes."""
        width, height = survey["source_size"]
        framing = self.options.framing((height, width), str(self.path))
        centered = framing.rows.start + framing.rows.stop == height
        return centered and framing.columns.start + framing.columns.stop == width and len(set(framing.scale)) == 1

    def read(self, key: Take, survey: Survey) -> Episode:
        """One scene, or one clip."""
        episode, place = super().read(key, survey), self._metadata(key)
        first, step = (key.first or 0) * self.options.stride, self.options.stride
        kept = np.arange(first, first + survey["num_frames"] * step, step)
        width, height = survey["source_size"]
        framing, num = self.options.framing((height, width), str(place)), survey["num_objects"]
        instances = self._instances(key)
        with layout_errors(str(place)):
            camera = _read(place)["camera"]
            lens = float(camera["focal_length"]), float(camera["sensor_width"])
            focal = kubric_camera.focal_px(*lens, width)
            if self._sees(survey):
                position, turn = (np.asarray(camera[name], np.float64)[kept] for name in ("positions", "quaternions"))
                episode |= kubric_camera.pose(position, turn, focal * framing.scale[0])
            if "depth" in episode:
                # by the length of each pixel's ray in the source
                unit = np.ones((1, height, width), np.float32)
                episode["depth"] = episode["depth"] * framing.nearest(kubric_camera.along_axis(unit, focal))
            episode["num_objects"] = np.array(len(instances), np.uint8)
            for name in survey["features"]:
                instance = INSTANCES[name]
                values = np.array([each[name] for each in instances], np.float64)
                if instance.per_frame:
                    values = np.moveaxis(values.reshape(len(instances), -1, *values.shape[2:]), 0, 1)[kept]
                if name == "image_positions":
                    values = framing.positions(values * np.array([width, height]))
                values = pad_objects(values, num, 1 if instance.per_frame else 0)
                shape = (
                    *values.shape[: 2 if instance.per_frame else 1],
                    *((instance.width,) if instance.columns else ()),
                )
                episode[f"objects/{instance.ours}"] = values.reshape(shape)
        return episode


@lru_cache(maxsize=4)
def _read(path: Path) -> Any:
    return read_json(path)
