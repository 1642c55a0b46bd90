"""Memory and speed of importing a long 1080p video as small clips, beside decoding it with ffmpeg alone.

    python benchmarks/import_long_video.py --frames 20000

The memory is that of the import and of all its processes together, sampled from outside (resident, shared pages counted
in each). Decoding alone is `ffmpeg -f null`, with as many threads as the import gives it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from imageio_ffmpeg import get_ffmpeg_exe

from slotssm.data.importers.readers.videos import MOST_THREADS
from slotssm.data.sharding import usable_processors

REPEATED_FRAMES = 250
SAMPLE_S = 0.05


def make_video(path: Path, frames: int, width: int, height: int) -> None:
    """A moving test picture with noise in H.264, a short part of which is repeated without encoding it again."""
    short = path.with_name("short.mp4")
    source = f"testsrc2=size={width}x{height}:rate=25,noise=alls=6:allf=t"
    encoder = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    run = [get_ffmpeg_exe(), "-v", "error", "-y"]
    subprocess.run([*run, "-f", "lavfi", "-i", source, "-frames:v", str(REPEATED_FRAMES), *encoder, short], check=True)
    repeat = ["-stream_loop", str(-(-frames // REPEATED_FRAMES) - 1), "-i", short, "-c", "copy"]
    subprocess.run([*run, *repeat, "-frames:v", str(frames), path], check=True)
    short.unlink()


def measured(command: list[str], cwd: Path) -> tuple[float, float, str]:
    """Seconds, peak MiB of a command and its processes, and its output."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, cwd=cwd, stdout=output)
        peak = 0
        while process.poll() is None:
            total = 0
            for each in (process, *process.children(recursive=True)):
                try:
                    total += each.memory_info().rss
                except psutil.Error:
                    continue
            peak = max(peak, total)
            time.sleep(SAMPLE_S)
        if process.returncode != 0:
            raise SystemExit(f"{command} failed")
        output.seek(0)
        return time.perf_counter() - started, peak / 2**20, output.read()


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--size", default="64", help="of the import")
    parser.add_argument("--clip-len", type=int, default=16)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        video = folder / "clips" / "long.mp4"
        make_video(video, options.frames, options.width, options.height)
        threads = str(min(MOST_THREADS, usable_processors()))
        decode = [get_ffmpeg_exe(), "-v", "error", "-threads", threads, "-i", str(video), "-f", "null", "-"]
        decode_s, decode_mib, _ = measured(decode, folder)
        arguments = ["--size", options.size, "--clip-len", str(options.clip_len), "--split", "train=all", "--json"]
        command = [sys.executable, "-m", "slotssm", "import", "folder", "clips", "--out", "d.h5", *arguments]
        import_s, import_mib, output = measured(command, folder)
        document = json.loads(output)
        print(
            json.dumps(
                {
                    "frames": options.frames,
                    "video": f"{options.width}x{options.height} H.264, {video.stat().st_size >> 20} MiB",
                    "imported": document["num_episodes"],
                    "import_peak_mib": round(import_mib),
                    "import_frames_per_s": round(document["num_frames"] / import_s, 1),
                    "import_s": round(import_s, 1),
                    "ffmpeg_peak_mib": round(decode_mib),
                    "ffmpeg_frames_per_s": round(options.frames / decode_s, 1),
                    "processors": usable_processors(),
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
