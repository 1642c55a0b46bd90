"""What must hold of every snitch episode, found from its pixels, depth and labels alone."""

import math

import numpy as np

SHAPES = ("cube", "sphere", "cylinder", "cone", "snitch")
ROTATE, SLIDE, PICK_PLACE, CONTAIN = range(4)
MOVED = 1e-6
"""Largest difference of a position that is not a motion: rounding to float32."""


def faults(episode: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with an episode, one line each."""
    num = int(episode["num_objects"])
    one = {
        name.removeprefix("objects/"): array[..., :num] if array.ndim == 2 else array[:, :num]
        for name, array in episode.items()
        if name.startswith("objects/") and array.ndim > 1
    }
    one |= {name: episode[f"objects/{name}"][:num] for name in ("shape", "radius")}
    actions = [tuple(row) for row in episode["actions"].tolist() if row[0] >= 0]
    return [
        *_label(episode),
        *_actions(actions, one),
        *_containment(one),
        *_motion(one, actions),
        *_overlap(one, actions),
        *_depth(episode, one, num),
        *_counts(episode, one, num),
        *_ending(episode, one),
    ]


def _label(episode: dict[str, np.ndarray]) -> list[str]:
    x, y = (
        min(max(float(value), -3.0), np.nextafter(3.0, 0)) for value in episode["objects/world_position"][-1, 0, :2]
    )
    wanted = 6 * (math.floor(y) + 3) + math.floor(x) + 3
    return [] if wanted == episode["snitch_cell"] else [f"label {episode['snitch_cell']} instead of {wanted}"]


def _actions(actions: list[tuple[int, ...]], one: dict[str, np.ndarray]) -> list[str]:
    found = []
    num_frames = len(one["contained_by"])
    for actor, kind, first, last in actions:
        if not 0 <= first < last < num_frames:
            found.append(f"action of {actor} from {first} to {last}")
        if one["contained_by"][first : last + 1, actor].any():
            found.append(f"{actor} acts under a cone")
        shape = SHAPES[one["shape"][actor]]
        if kind == CONTAIN and shape != "cone":
            found.append(f"a {shape} contains")
        place, turn = one["world_position"][[first, last], actor], one["quaternion"][[first, last], actor]
        if kind == ROTATE and (np.abs(place[1] - place[0]).max() > 1e-5 or np.abs(turn[1] - turn[0]).max() < 0.1):
            found.append(f"rotation of {actor} moves it, or does not turn it")
        if kind == CONTAIN and not (one["contained_by"][last] == actor + 1).any():
            found.append(f"{actor} contains nothing in frame {last}")
        others = [other for other in actions if other[0] == actor and other != (actor, kind, first, last)]
        if any(other[2] <= last and first <= other[3] for other in others):
            found.append(f"{actor} does two things at once")
    return found


def _containment(one: dict[str, np.ndarray]) -> list[str]:
    found = []
    for t, n in np.argwhere(one["contained_by"]):
        cone = int(one["contained_by"][t, n]) - 1
        if SHAPES[one["shape"][cone]] != "cone" or one["radius"][cone] <= one["radius"][n]:
            found.append(f"{cone} cannot contain {n}")
        if one["visible"][t, n]:
            found.append(f"{n} has {one['visible'][t, n]} visible pixels under {cone} in frame {t}")
        apart = one["world_position"][t, n, :2] - one["world_position"][t, cone, :2]
        if np.abs(apart).max() > MOVED or abs(one["world_position"][t, cone, 2] - one["radius"][cone]) > MOVED:
            found.append(f"{cone} does not stand over {n} in frame {t}")
    return found


def _motion(one: dict[str, np.ndarray], actions: list[tuple[int, ...]]) -> list[str]:
    """Whether something moves without an action of its own or of the cone that it is under."""
    allowed = np.zeros(one["contained_by"].shape, bool)
    for actor, _, first, last in actions:
        allowed[first:last, actor] = True
    found = []
    place = np.abs(np.diff(one["world_position"], axis=0)).max(-1) > MOVED
    turn = np.abs(np.diff(one["quaternion"], axis=0)).max(-1) > MOVED
    for t, n in np.argwhere(place | turn):
        carrier = n
        while one["contained_by"][t, carrier]:
            above = int(one["contained_by"][t, carrier]) - 1
            step = np.diff(one["world_position"][t : t + 2], axis=0)[0]
            if turn[t, n] or np.abs(step[n] - step[above]).max() > 2 * MOVED:
                found.append(f"{n} moves other than the cone over it in frame {t}")
            carrier = above
        if not allowed[t, carrier]:
            found.append(f"{n} moves in frame {t} without an action")
    return found


def _overlap(one: dict[str, np.ndarray], actions: list[tuple[int, ...]]) -> list[str]:
    """Whether two objects overlap, as upright cylinders, but for a cone over an object on the same axis."""
    low, high, reach = _extent(one)
    acting = np.zeros(one["contained_by"].shape, bool)
    for actor, kind, first, last in actions:
        if kind in (PICK_PLACE, CONTAIN):
            acting[first : last + 1, actor] = True
    num, found = len(one["radius"]), []
    for i in range(num):
        for j in range(i):
            distance = np.linalg.norm(one["world_position"][:, i, :2] - one["world_position"][:, j, :2], axis=-1)
            meets = (distance < reach[:, i] + reach[:, j]) & (low[:, i] < high[:, j]) & (low[:, j] < high[:, i])
            for t in np.flatnonzero(meets):
                if _contains(one, t, i, j) or _contains(one, t, j, i):
                    continue
                # a cone that is being put over an object, or taken off it, with all that the object is in
                cone = [n for n in (i, j) if acting[t, n] and SHAPES[one["shape"][n]] == "cone"]
                if not (cone and distance[t] <= 2 * MOVED):
                    found.append(f"{i} and {j} overlap in frame {t}")
    return found


def _contains(one: dict[str, np.ndarray], t: int, outer: int, inner: int) -> bool:
    above = int(one["contained_by"][t, inner])
    while above:
        if above - 1 == outer:
            return True
        above = int(one["contained_by"][t, above - 1])
    return False


def _extent(one: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Lowest and highest point, and radius of the upright cylinder around every object, each [T, N]."""
    half = np.where(np.isin(one["shape"], (0, 4)), one["radius"] / math.sqrt(2), one["radius"])
    bound = np.select(
        [one["shape"] == 1, np.isin(one["shape"], (0, 4))],
        [one["radius"], math.sqrt(1.5) * one["radius"]],
        math.sqrt(2) * one["radius"],
    )
    is_tilted = np.abs(one["quaternion"][..., 1:3]).max(-1) > 1e-6
    # a body that has been turned over by quarters stands upright again
    row = 1 - 2 * (one["quaternion"][..., 1] ** 2 + one["quaternion"][..., 2] ** 2)
    is_tilted &= np.abs(np.abs(row) - np.round(np.abs(row))) > 1e-5
    z = one["world_position"][..., 2]
    reach = np.where(is_tilted, bound, one["radius"])
    height = np.where(is_tilted, bound, half)
    return np.where(is_tilted, 0.0, z - height), z + height, reach


def _depth(episode: dict[str, np.ndarray], one: dict[str, np.ndarray], num: int) -> list[str]:
    """Whether what depth says of every tenth frame lies on the table, or on the object that the mask names."""
    found = []
    height, width = episode["masks"].shape[1:]
    columns, rows = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    for t in range(0, len(episode["masks"]), 10):
        depth, masks = episode["depth"][t].astype(float), episode["masks"][t]
        inside = np.stack([columns, rows, np.full_like(columns, episode["camera/focal_px"][t])], -1)
        inside *= (depth / episode["camera/focal_px"][t])[..., None]
        world = inside @ episode["camera/rotation"][t].astype(float).T + episode["camera/position"][t]
        ground = world[(masks == 0) & (depth > 0)]
        if np.abs(ground[:, 2]).max(initial=0) > 1e-4 * depth.max():
            found.append(f"ground off the table in frame {t}")
        for n in range(num):
            points = world[masks == n + 1] - one["world_position"][t, n]
            if not len(points):
                continue
            across, away = np.hypot(points[:, 0], points[:, 1]), np.linalg.norm(points, axis=-1)
            r, shape = one["radius"][n], SHAPES[one["shape"][n]]
            if away.max() > math.sqrt(2) * r + 1e-4 or points[:, 2].min() + one["world_position"][t, n, 2] < -1e-4:
                found.append(f"depth beside {n} in frame {t}")
            if shape == "sphere" and np.abs(away - r).max() > 1e-4:
                found.append(f"depth off the sphere {n} in frame {t}")
            if (
                shape == "cone"
                and np.abs(across - (r - points[:, 2]) / 2).max() > 1e-4
                and points[:, 2].min() > -r + 1e-4
            ):
                found.append(f"depth off the cone {n} in frame {t}")
    return found


def _counts(episode: dict[str, np.ndarray], one: dict[str, np.ndarray], num: int) -> list[str]:
    counted = np.stack([(episode["masks"] == n + 1).sum((1, 2)) for n in range(num)], axis=1)
    found = [] if np.array_equal(counted, one["visible"]) else ["visible is not what masks show"]
    return found + ([] if (one["unoccluded"] >= one["visible"]).all() else ["unoccluded below visible"])


def _ending(episode: dict[str, np.ndarray], one: dict[str, np.ndarray]) -> list[str]:
    within, visible = one["contained_by"][:, 0] > 0, one["visible"][:, 0]
    wanted = 0 if visible[-1] else 1
    if within[-1]:
        since = len(within) - int(np.argmin(within[::-1])) if not within.all() else 0
        wanted = 3 if np.abs(one["world_position"][-1, 0] - one["world_position"][since, 0]).max() > MOVED else 2
    hidden = len(visible) - 1 - np.flatnonzero(visible)[-1] if visible.any() else len(visible)
    cones, above = 0, int(one["contained_by"][-1, 0])
    while above:
        cones, above = cones + 1, int(one["contained_by"][-1, above - 1])
    stored = [int(episode[name]) for name in ("snitch_ending", "hidden_frames", "num_containers")]
    return [] if stored == [wanted, hidden, cones] else [f"ending {stored} instead of {[wanted, hidden, cones]}"]
