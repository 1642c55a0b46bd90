"""Import damaged files: each must end within the limits, with exit code 0 or 2 and one line, and leave nothing behind.

    python benchmarks/import_mutations.py --count 300 --seed 0

Small sound sources of every kind (the writers of tests/data/importers) are changed at random: bytes replaced, removed,
inserted or repeated, files cut or emptied, numbers in JSON replaced. Each is imported by a process of its own, half of
them with the option to leave damaged episodes out. Counted are exit codes, and violations: another exit code, more or
less than one line of error, files left beside the output, more than 30 s, or more than 2 GiB of memory.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "data" / "importers"))

import foreign_files as files  # noqa: E402
import foreign_scenes as scenes  # noqa: E402

LIMIT_S = 30
LIMIT_BYTES = 2 << 30


def sources(folder: Path) -> dict[str, list[str]]:
    """Sound sources by name, with the arguments of their import."""
    made = [scenes.scene(seed) for seed in range(3)]
    for index, each in enumerate(made):
        for kind in ("frames", "masks", "depth"):
            for t, picture in enumerate(each[kind]):
                scenes.put(folder / "pictures" / kind / f"v{index}" / f"{t}.png", files.png(picture))
        scenes.write_tum(folder / "tum" / f"s{index}", each)
        scenes.write_kubric(folder / "kubric" / f"s{index}", index)
    rng = np.random.default_rng(0)
    for index, suffix in enumerate((".mp4", ".avi", ".mp4", ".avi")):
        files.write_video(folder / "videos" / f"v{index}{suffix}", files.smooth_video(rng, 12, 32, 48))
    scenes.write_youtube_vis(folder / "vis", made)
    files.write_cater(folder / "cater", 4)
    files.write_movi(folder / "movi", {"train": [2, 1], "validation": [1]})
    some = [scenes.multi_object_scene(rng, num, 5, (64, 64)) for num in (1, 3, 2)]
    scenes.write_multi_object(folder / "multi" / "room_train.tfrecords", some)
    files.write_rnem(folder / "balls.h5", {"training": 3, "test": 1}, frames=8, size=32)
    return {
        "pictures": ["folder", "pictures", "--depth"],
        "tum": ["rgbd", "tum"],
        "kubric": ["kubric", "kubric", "--depth"],
        "videos": ["folder", "videos", "--clip-len", "4", "--size", "16"],
        "vis": ["folder", "vis", "--masks", "vis/instances.json"],
        "cater": ["cater", "cater"],
        "movi": ["movi", "movi"],
        "multi": ["multi-object", "multi"],
        "balls.h5": ["rnem", "balls.h5"],
    }


def mutate(path: Path, rng: random.Random) -> str:
    """Change a file; returns how."""
    content = bytearray(path.read_bytes())
    how = rng.choice(["bytes", "bytes", "cut", "zeros", "removed", "inserted", "repeated", "empty", "numbers", "bits"])
    place = rng.randrange(max(1, len(content)))
    length = rng.choice([1, 4, 64, 1000])
    if how == "numbers" and path.suffix == ".json":
        text = content.decode()
        digits = [index for index, letter in enumerate(text) if letter.isdigit()]
        index = rng.choice(digits)
        other = rng.choice(["1e999", "-1", "null", '"x"', "99999999999999", "[]", "NaN", "{}"])
        path.write_text(text[:index] + other + text[index + 1 :])
        return how
    if how in ("bytes", "numbers"):
        for _ in range(rng.choice([1, 6, 50])):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif how == "bits":
        content[place] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[place:]
    elif how == "zeros":
        content[place : place + length] = bytes(len(content[place : place + length]))
    elif how == "removed":
        del content[place : place + length]
    elif how == "inserted":
        content[place:place] = rng.randbytes(length)
    elif how == "repeated":
        content[place:place] = content[place : place + length] * 3
    else:
        content.clear()
    path.write_bytes(content)
    return how


def main() -> None:
    """Mutate, import, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    violations, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        sound, work = Path(name) / "sound", Path(name) / "work"
        arguments = sources(sound)
        for number in range(options.count):
            if number % 25 == 0:
                print(f"{number} of {options.count}, {len(violations)} violations", file=sys.stderr, flush=True)
            rng = random.Random(f"{options.seed} {number}")
            source = rng.choice(list(arguments))
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            target = work / source
            if (sound / source).is_dir():
                shutil.copytree(sound / source, target)
            else:
                shutil.copy(sound / source, target)
            changed = rng.choice(sorted(p for p in (target.rglob("*") if target.is_dir() else [target]) if p.is_file()))
            how = mutate(changed, rng)
            skip = ["--skip-damaged"] if rng.random() < 0.5 else []
            command = [sys.executable, "-m", "slotssm", "import", *arguments[source], *skip, "--out", "out/d.h5"]
            started = time.perf_counter()
            try:
                done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            except subprocess.TimeoutExpired:
                violations.append(
                    {"number": number, "file": str(changed.relative_to(work)), "how": how, "fault": "hung"}
                )
                continue
            slowest = max(slowest, time.perf_counter() - started)
            codes[done.returncode] += 1
            outcomes[f"{source} {done.returncode}"] += 1
            lines = [line for line in done.stderr.splitlines() if line.startswith("slotssm: ")]
            left = sorted(p.name for p in (work / "out").iterdir()) if (work / "out").exists() else []
            fault = ""
            if done.returncode not in (0, 2) or "Traceback" in done.stderr:
                fault = f"exit {done.returncode}: {done.stderr[-300:]}"
            elif len(lines) != (done.returncode == 2):
                fault = f"{len(lines)} lines of error: {done.stderr[-300:]}"
            elif left != (["d.h5"] if done.returncode == 0 else []):
                fault = f"left {left}"
            if fault:
                violations.append(
                    {"number": number, "file": str(changed.relative_to(work)), "how": how, "fault": fault}
                )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "mutated": options.count,
                "exit_codes": dict(codes),
                "by_source": dict(sorted(outcomes.items())),
                "slowest_s": round(slowest, 1),
                "largest_process_mib": round(peak / 2**20),
                "violations": violations,
            },
            indent=2,
        )
    )
    raise SystemExit(bool(violations) or peak > LIMIT_BYTES)


if __name__ == "__main__":
    main()
