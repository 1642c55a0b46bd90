"""Videos of all kinds: the pixels that are stored, in memory of a few frames, or a refusal that says why."""

import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from slotssm import ffmpeg
from slotssm.data.importers.readers import videos
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.readers.videos import Reel, count_frames, first_frame, read_video
from slotssm.errors import InputError
from slotssm.ffmpeg import FFmpegError

OPTIONS = ImportOptions(kind="folder")
HEIGHT, WIDTH, FRAMES = 32, 48, 7


def encode(path: Path, array: np.ndarray, pixels: str, *options: str, size=None, tags=()) -> Path:
    """A video of an array's bytes, frame after frame; `tags` say how its colours are meant."""
    height, width = size or array.shape[1:3]
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}", "-r", "10", *tags, "-i", "-"]
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *source, *options, f"file:{path}"]
    subprocess.run(command, input=array.tobytes(), check=True)
    return path


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3)).astype(np.uint8)


LOSSLESS = {
    "rgb.mkv": ("-c:v", "libx264rgb", "-crf", "0"),
    "png.mov": ("-c:v", "png"),
    "planes.mkv": ("-c:v", "ffv1", "-pix_fmt", "gbrp"),
    "raw.avi": ("-c:v", "rawvideo", "-pix_fmt", "bgr24"),
    "opaque.mov": ("-c:v", "qtrle", "-pix_fmt", "argb"),
    "na me: 10%d²ü✓.mkv": ("-c:v", "ffv1", "-pix_fmt", "bgr0"),
    "-i.mkv": ("-c:v", "ffv1", "-pix_fmt", "bgr0"),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_colours_come_back_exactly(tmp_path, rgb, name):
    path = encode(tmp_path / name, rgb, "rgb24", *LOSSLESS[name])
    np.testing.assert_array_equal(read_video(path, OPTIONS), rgb)
    np.testing.assert_array_equal(first_frame(path), rgb[0])
    assert count_frames(path) == FRAMES


def test_a_gif_comes_back_exactly(tmp_path):
    colors = np.random.default_rng(1).integers(0, 256, (20, 3)).astype(np.uint8)
    indices = np.random.default_rng(0).integers(0, 20, (FRAMES, HEIGHT, WIDTH)).astype(np.uint8)
    pictures = [Image.fromarray(each) for each in indices]
    for picture in pictures:
        picture.putpalette(colors.ravel().tolist())
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100, optimize=False)
    np.testing.assert_array_equal(read_video(tmp_path / "a.gif", OPTIONS), colors[indices])


@pytest.mark.parametrize(("pixels", "bits"), [("gray", 8), ("gray10le", 10), ("gray16le", 16), ("gbrp16le", 16)])
def test_grey_and_deep_videos_give_the_nearest_value_of_8_bits(tmp_path, pixels, bits):
    planes = 3 if pixels.startswith("gbr") else 1
    values = np.random.default_rng(0).integers(0, 2**bits, (FRAMES, planes, HEIGHT, WIDTH))
    raw = values.astype("<u2" if bits > 8 else "u1")
    path = encode(tmp_path / "v.mkv", raw, pixels, "-c:v", "ffv1", size=(HEIGHT, WIDTH))
    found = read_video(path, OPTIONS).astype(float)
    order = [2, 0, 1] if planes == 3 else [0, 0, 0]
    exact = values[:, order].transpose(0, 2, 3, 1) / (2**bits - 1) * 255
    assert np.abs(found - exact).max() <= 0.51


@pytest.mark.parametrize(
    ("pixels", "bits", "matrix"),
    [
        ("yuv444p", 8, "bt709"),
        ("yuv444p10le", 10, "bt709"),
        ("yuv444p12le", 12, "smpte170m"),
        ("yuv420p10le", 10, "bt709"),
    ],
)
@pytest.mark.parametrize("suffix", [".mkv"])
def test_colour_matrices_are_right_to_within_rounding(tmp_path, pixels, bits, matrix, suffix):
    """Limited range, by the definition of ITU-R BT.709 and BT.601; chroma is uniform where it is stored in half."""
    rng, unit, half = np.random.default_rng(0), 2 ** (bits - 8), 2 if "420" in pixels else 1
    luma = rng.integers(16 * unit, 235 * unit, (FRAMES, HEIGHT, WIDTH))
    shape = (FRAMES, HEIGHT // half, WIDTH // half)
    # moderate, so that few colours leave the cube
    chroma = [rng.integers(100 * unit, 156 * unit, shape if half == 1 else (FRAMES, 1, 1)) for _ in range(2)]
    kind = "<u2" if bits > 8 else "u1"
    raw = b"".join(
        plane[t].astype(kind).tobytes()
        for t in range(FRAMES)
        for plane in (luma, *(np.broadcast_to(c, shape) for c in chroma))
    )
    tags = ("-colorspace", matrix, "-color_range", "tv")
    path = encode(
        tmp_path / f"v{suffix}", np.frombuffer(raw, np.uint8), pixels, "-c:v", "ffv1", size=(HEIGHT, WIDTH), tags=tags
    )
    red_share, blue_share = (0.2126, 0.0722) if matrix == "bt709" else (0.299, 0.114)
    y = (luma - 16 * unit) / (219 * unit)
    u, v = (np.broadcast_to((c - 128 * unit) / (224 * unit), y.shape) for c in chroma)
    red, blue = y + 2 * (1 - red_share) * v, y + 2 * (1 - blue_share) * u
    green = (y - red_share * red - blue_share * blue) / (1 - red_share - blue_share)
    exact = (np.stack([red, green, blue], axis=-1) * 255).clip(0, 255)
    assert np.abs(read_video(path, OPTIONS) - exact).max() <= 0.51


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ten.mp4", ("-c:v", "libx264", "-qp", "1", "-pix_fmt", "yuv444p10le")),
        ("hevc.mp4", ("-c:v", "libx265", "-x265-params", "log-level=none:qp=1", "-pix_fmt", "yuv444p10le")),
        ("prores.mov", ("-c:v", "prores_ks", "-profile:v", "4444xq", "-pix_fmt", "yuv444p10le")),
        ("vp9.webm", ("-c:v", "libvpx-vp9", "-lossless", "1", "-pix_fmt", "yuv444p")),
        ("full.mp4", ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuvj444p")),
        ("odd.mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv444p")),
        ("odd420.mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv420p10le")),
    ],
)
def test_codecs_of_cameras_and_studios(tmp_path, name, options):
    """What they lose, at their best quality, is little; a wrong range, matrix or depth would show."""
    height, width = (31, 45) if name.startswith("odd") else (64, 96)
    x, y, t = np.meshgrid(np.arange(width), np.arange(height), np.arange(5), indexing="xy")
    waves = [128 + 100 * np.sin(x / 9 + t / 3), 128 + 90 * np.cos(y / 7 + t / 4), 128 + 80 * np.sin((x + y) / 11)]
    frames = np.stack(waves, axis=-1).transpose(2, 0, 1, 3).round().astype(np.uint8)
    path = encode(tmp_path / name, frames, "rgb24", *options)
    found = read_video(path, OPTIONS)
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < (3 if "420" in name else 1.5)


def test_videos_are_turned_as_their_file_says(tmp_path, rgb):
    plain = encode(tmp_path / "plain.mov", rgb, "rgb24", "-c:v", "png")
    turned = tmp_path / "turned.mov"
    command = [get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90", "-i", str(plain), "-c", "copy", str(turned)]
    subprocess.run(command, check=True)
    np.testing.assert_array_equal(read_video(turned, OPTIONS), np.rot90(rgb, axes=(1, 2)))


def test_frames_are_those_that_are_stored_whatever_their_times(tmp_path, rgb):
    uneven = ("-vf", "setpts='N*N/10/TB'", "-fps_mode", "passthrough", "-c:v", "ffv1", "-pix_fmt", "bgr0")
    np.testing.assert_array_equal(read_video(encode(tmp_path / "v.mkv", rgb, "rgb24", *uneven), OPTIONS), rgb)


def test_a_sound_that_goes_on_after_the_video_adds_no_frames(tmp_path, rgb):
    sound = ("-f", "lavfi", "-i", "sine=duration=4", "-c:v", "ffv1", "-pix_fmt", "bgr0", "-c:a", "pcm_s16le")
    path = encode(tmp_path / "v.mkv", rgb, "rgb24", *sound)
    np.testing.assert_array_equal(read_video(path, OPTIONS), rgb)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v.mov", ("-c:v", "qtrle", "-pix_fmt", "argb")),
        ("v.mkv", ("-c:v", "ffv1", "-pix_fmt", "yuva444p")),
        ("v.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0")),
    ],
)
def test_transparent_videos_are_refused(tmp_path, rgb, name, options):
    layers = np.concatenate([rgb, np.full_like(rgb[..., :1], 120)], axis=-1)
    path = encode(tmp_path / name, layers, "rgba", *options)
    with pytest.raises(InputError, match="transparent pixels; lay it on a background"):
        read_video(path, OPTIONS)
    with pytest.raises(InputError, match="transparent pixels"):
        first_frame(path)


@pytest.mark.parametrize(("first", "step", "count"), [(0, 1, 7), (2, 1, 3), (1, 2, 3), (0, 3, 3)])
def test_a_reel_gives_any_part(tmp_path, rgb, first, step, count):
    path = encode(tmp_path / "v.mov", rgb, "rgb24", "-c:v", "png")
    found = Reel().read(path, first, count, step, OPTIONS)
    np.testing.assert_array_equal(found, rgb[::step][first : first + count])


def test_a_reel_decodes_once_what_is_asked_in_order(tmp_path, rgb, monkeypatch):
    started = []
    frames = videos.Decoder.frames
    monkeypatch.setattr(videos.Decoder, "frames", lambda self: started.append(self.first) or frames(self))
    path, reel = encode(tmp_path / "v.mov", rgb, "rgb24", "-c:v", "png"), Reel()
    for first in (0, 1, 3, 3, 4):
        np.testing.assert_array_equal(reel.read(path, first, 3, 1, OPTIONS), rgb[first : first + 3])
    assert started == [0]
    np.testing.assert_array_equal(reel.read(path, 2, 3, 1, OPTIONS), rgb[2:5])
    with pytest.raises(InputError, match="changed while it was read"):
        reel.read(path, 5, 3, 1, OPTIONS)
    assert started == [0, 2]


@pytest.mark.parametrize("name", ["v.avi", "v.mp4", "v.mkv"])
def test_what_a_decoder_reports_is_damage_even_if_no_frame_is_missing(tmp_path, rgb, name):
    codec = (
        ("-c:v", "mjpeg", "-q:v", "2") if name == "v.avi" else ("-c:v", "libx264", "-qp", "8", "-pix_fmt", "yuv420p")
    )
    path = encode(tmp_path / name, rgb.repeat(8, axis=0), "rgb24", *codec)
    whole, rng, reported = path.read_bytes(), np.random.default_rng(3), 0
    for _ in range(6):
        content = bytearray(whole)
        for place in rng.integers(len(whole) // 4, len(whole) * 3 // 4, 6):
            content[place] = int(rng.integers(0, 256))
        path.write_bytes(content)
        with suppress(InputError):
            read_video(path, OPTIONS, range(8 * FRAMES, 8 * FRAMES + 1))
            continue
        reported += 1
    assert reported >= 5


def test_other_files_under_the_name_of_a_video_open_nothing(tmp_path, rgb):
    encode(tmp_path / "inner.mkv", rgb, "rgb24", "-c:v", "ffv1", "-pix_fmt", "bgr0")
    lists = {
        "concat.mp4": "ffconcat version 1.0\nfile inner.mkv\n",
        "hls.mp4": "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\ninner.mkv\n#EXT-X-ENDLIST\n",
        "text.mp4": "nothing",
        "empty.mp4": "",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="is damaged: it gives 0 frames"):
            read_video(tmp_path / name, OPTIONS)


@pytest.mark.parametrize("name", ["sound.mp4", "sound.avi", "sound.mkv"])
def test_a_file_without_a_picture_is_not_blamed_on_ffmpeg(tmp_path, name):
    sound = ["-f", "lavfi", "-i", "sine", "-t", "0.1", "-c:a", "pcm_s16le" if name != "sound.mp4" else "aac"]
    subprocess.run([get_ffmpeg_exe(), "-v", "error", *sound, str(tmp_path / name)], check=True)
    for read in (lambda path: read_video(path, OPTIONS), count_frames, first_frame):
        with pytest.raises(InputError, match=r"is damaged: it gives 0 frames \(.*matches no streams"):
            read(tmp_path / name)


def test_a_missing_ffmpeg_is_named_and_no_video_is_blamed(tmp_path, rgb, monkeypatch):
    path = encode(tmp_path / "v.mkv", rgb, "rgb24", "-c:v", "ffv1", "-pix_fmt", "bgr0")

    def absent():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", absent)
    with pytest.raises(FFmpegError, match=r"no ffmpeg was found.*imageio-ffmpeg"):
        read_video(path, OPTIONS)
    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "nowhere"))
    with pytest.raises(FFmpegError, match=r"nowhere cannot be run.*no such program"):
        read_video(path, OPTIONS)
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho \"[fatal] Unrecognized option 'fps_mode'.\" >&2\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", lambda: str(old))
    with pytest.raises(FFmpegError, match=r"old cannot decode videos here, since it is too old.*fps_mode"):
        read_video(path, OPTIONS)
