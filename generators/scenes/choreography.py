"""Who moves when: the actions of CATER (Girdhar and Ramanan 2020), planned so that nothing runs into anything.

Time is divided into slots, in each of which some free objects act: *rotate*, *slide*, *pick and place*, and, for
cones, *contain*: to be picked up and put over a smaller object. A contained object goes where its cone slides, and is
free again once the cone is picked up. An action is only taken if the actor, as an upright cylinder around it, keeps
clear of all others in every frame.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from generators.scenes.solids import CONE, CUBE, CYLINDER, HALF_SIDE, SNITCH, SPHERE, bounding_radius, half_height
from generators.scenes.stage import matrices, rest_height, turned
from slotssm.errors import InputError

ACTIONS = ("rotate", "slide", "pick_place", "contain")
"""Names of the actions; their order is the code."""
ROTATE, SLIDE, PICK_PLACE, CONTAIN = range(len(ACTIONS))
EDGE = 3.0
"""Objects stand in [-3, 3]², with their centres, unless they are kept nearer to the middle."""
GAP = 0.06
"""Smallest distance of two objects, in world units."""
LIFT = 1.75
"""Height of the lower side of an object that is carried through the air, above everything that stands."""
SNUG = 0.97
"""Share of the room under a cone that an object may fill."""
TARGETS = 12
"""Places that are tried for an action before it is given up."""
PLACEMENT_TRIES, PLACEMENT_RESTARTS = 200, 200


class Manners(NamedTuple):
    """How objects act.

    Attributes:
        slot_frames: length of a slot.
        max_moving: largest number of objects that act in a slot; the number is drawn uniformly from 1.
        containment: probability that an acting cone covers an object, if it can.
        preference: probability that it covers the snitch, or the cones over it, if it can.
        release: probability that an acting cone that contains something is picked up rather than slid.
        edge: objects stand in [-edge, edge]².
    """

    slot_frames: int
    max_moving: int
    containment: float
    preference: float
    release: float
    edge: float = EDGE


@dataclass(frozen=True)
class Play:
    """Motion of N objects in T frames.

    Attributes:
        position: float64 [T, N, 3].
        quaternion: float64 [T, N, 4].
        contained_by: int64 [T, N], 0 or 1 + index of the cone right above.
        actions: int64 [A, 4], object, kind, first and last frame, in the order of first frames.
    """

    position: np.ndarray
    quaternion: np.ndarray
    contained_by: np.ndarray
    actions: np.ndarray


class _Track(NamedTuple):
    """Motion of an actor in the frames of an action and the rest of its slot: [F, 2], [F], [F], [F], [F, 4]."""

    plane: np.ndarray
    low: np.ndarray
    top: np.ndarray
    reach: np.ndarray
    quaternion: np.ndarray
    height: np.ndarray


def fits_under(shape: np.ndarray, radius: np.ndarray, cone_radius: float) -> np.ndarray:
    """Whether objects fit under a cone of radius R and height 2R that stands right over them, [N].

    A cylinder of radius r and height h fits if r ≤ R - h/2; a sphere if its centre is r from the side.
    """
    root = np.sqrt(5.0)
    largest = {
        CUBE: 1 / (1 + HALF_SIDE),
        SNITCH: 1 / (1 + HALF_SIDE),
        CYLINDER: 0.5,
        SPHERE: 2 / (root + 1),
        CONE: 1.0,
    }
    share = np.array([largest[code] for code in range(len(largest))])[shape]
    return radius <= SNUG * share * cone_radius


def scatter(rng: np.random.Generator, radius: np.ndarray, edge: float = EDGE) -> np.ndarray:
    """Places [N, 2] in [-edge, edge]² at which objects keep apart.

    Raises:
        InputError: no arrangement was found.
    """
    num = len(radius)
    for _ in range(PLACEMENT_RESTARTS):
        place = np.empty((num, 2))
        for n in range(num):
            tries = rng.uniform(-edge, edge, (PLACEMENT_TRIES, 2))
            distance = np.linalg.norm(tries[:, None] - place[None, :n], axis=-1)
            free = np.flatnonzero((distance > radius[:n] + radius[n] + GAP).all(axis=1))
            if len(free) == 0:
                break
            place[n] = tries[free[0]]
        else:
            return place
    raise InputError(f"{num} objects could not be placed on the table; use fewer `objects` or smaller `sizes`")


def play(
    rng: np.random.Generator,
    shape: np.ndarray,
    radius: np.ndarray,
    place: np.ndarray,
    num_frames: int,
    manners: Manners,
) -> Play:
    """Plan the motion of objects from their first places.

    Args:
        rng: source of randomness.
        shape: [N], the snitch first.
        radius: [N].
        place: [N, 2].
        num_frames: T.
        manners: how objects act.
    """
    director = _Director(rng, shape, radius, place, num_frames, manners)
    length = min(manners.slot_frames, num_frames)
    for first in range(0, num_frames - length + 1, length):
        # the last slot takes what is left
        last = num_frames if first + 2 * length > num_frames else first + length
        director.plan(first, last)
    return director.play()


def _eased(share: np.ndarray) -> np.ndarray:
    """From 0 to 1, starting and ending at rest."""
    share = np.minimum(np.maximum(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


class _Director:
    """The state of the table while actions are planned slot by slot."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape: np.ndarray,
        radius: np.ndarray,
        place: np.ndarray,
        num_frames: int,
        manners: Manners,
    ) -> None:
        num = len(shape)
        self.rng, self.shape, self.radius, self.manners = rng, shape, radius, manners
        self.half = half_height(shape, radius)
        self.bound = np.array([bounding_radius(int(code), r) for code, r in zip(shape, radius, strict=True)])
        self.fits = np.array(
            [fits_under(shape, radius, r) & (code == CONE) for code, r in zip(shape, radius, strict=True)]
        )
        """[N, N]: whether the first can contain the second."""
        self.inside = np.full(num, -1)
        """Index of the cone right above an object, -1 for free ones."""
        self.plane = np.broadcast_to(place, (num_frames, num, 2)).copy()
        self.low = np.zeros((num_frames, num))
        self.top = np.broadcast_to(2 * self.half, (num_frames, num)).copy()
        self.reach = np.broadcast_to(radius, (num_frames, num)).copy()
        self.height = np.broadcast_to(self.half, (num_frames, num)).copy()
        self.quaternion = np.broadcast_to(turned(rng.uniform(-np.pi, np.pi, num)), (num_frames, num, 4)).copy()
        self.within = np.zeros((num_frames, num), np.int64)
        self.actions: list[tuple[int, int, int, int]] = []

    def play(self) -> Play:
        """The planned motion."""
        position = np.concatenate([self.plane, self.height[..., None]], axis=-1)
        actions = np.array(sorted(self.actions, key=lambda action: (action[2], action[0])), np.int64).reshape(-1, 4)
        return Play(position, self.quaternion, self.within, actions)

    def plan(self, first: int, last: int) -> None:
        """Let free objects act in the frames from `first` to before `last`."""
        self.first, self.last = first, last
        self.busy: set[int] = set()
        self.sheltered = self.inside >= 0
        """Objects that are under a cone in the whole slot, where nothing can meet them but the cone."""
        num_actors = int(self.rng.integers(1, self.manners.max_moving + 1))
        free = np.flatnonzero(self.inside < 0)
        for actor in self.rng.permutation(free)[:num_actors].tolist():
            if actor not in self.busy:
                self._act(actor)

    def _act(self, actor: int) -> None:
        length = self.last - self.first
        start = self.first + int(self.rng.integers(0, length // 3 + 1))
        end = self.first + int(self.rng.integers(2 * length // 3, length))
        if end - start < 2:
            return
        contents = np.flatnonzero(self.inside == actor).tolist()
        stays = bool(contents) and self.rng.random() >= self.manners.release
        if self.shape[actor] == CONE and not stays:
            targets = self._coverable(actor)
            if len(targets) and self.rng.random() < self.manners.containment:
                self._contain(actor, self._chosen(targets), start, end)
                return
        kinds = [SLIDE] if stays else [PICK_PLACE] if contents else self._kinds(actor)
        kind = kinds[self.rng.integers(len(kinds))]
        if kind == ROTATE:
            self._rotate(actor, start, end)
        else:
            self._travel(actor, kind, start, end)

    def _kinds(self, actor: int) -> list[int]:
        """What an object that contains nothing may do; spheres and cones look the same when turned."""
        return [SLIDE, PICK_PLACE] if self.shape[actor] in (SPHERE, CONE) else [ROTATE, SLIDE, PICK_PLACE]

    def _coverable(self, cone: int) -> np.ndarray:
        """Free objects at rest in this slot that a cone can contain."""
        able = self.fits[cone] & (self.inside < 0)
        able[[cone, *self.busy]] = False
        return np.flatnonzero(able)

    def _chosen(self, targets: np.ndarray) -> int:
        """One of the targets: with the preferred probability the snitch, or the outermost cone over it."""
        wanted = 0
        while self.inside[wanted] >= 0:
            wanted = int(self.inside[wanted])
        if wanted in targets and self.rng.random() < self.manners.preference:
            return wanted
        return int(targets[self.rng.integers(len(targets))])

    def _group(self, actor: int) -> list[int]:
        """An object and everything under it."""
        group = [actor]
        for member in group:
            group += np.flatnonzero(self.inside == member).tolist()
        return group

    def _rotate(self, actor: int, start: int, end: int) -> None:
        """Turn a quarter or half, about the vertical axis or, which cylinders always do, over a side."""
        over = self.shape[actor] == CYLINDER or self.rng.random() < 0.5
        angle = np.pi if self.shape[actor] == CYLINDER else np.pi / 2 * int(self.rng.integers(1, 3))
        angle *= int(self.rng.choice((-1, 1)))
        track = self._still(actor, start)
        progress = _eased(np.arange(self.last - start) / (end - start)) * angle / 2
        # over a side: about one of its own axes that is level now, since it may lie on another face than at first
        upright = np.abs(matrices(track.quaternion[0])[2])
        about = np.eye(3)[np.flatnonzero(upright < 0.5)[0]] if over else np.array([0, 0, 1.0])
        turn = np.concatenate([np.cos(progress)[:, None], np.sin(progress)[:, None] * about], axis=1)
        quaternion = _product(track.quaternion, turn) if over else _product(turn, track.quaternion)
        if over:
            height = rest_height(self.shape[[actor]], self.radius[[actor]], matrices(quaternion[:, None]))[:, 0]
            bound = np.full(len(height), self.bound[actor])
            track = track._replace(reach=bound, top=height + bound, height=height)
        self._commit_if_clear(actor, ROTATE, start, end, track._replace(quaternion=quaternion), [])

    def _travel(self, actor: int, kind: int, start: int, end: int) -> None:
        """Slide to another place, with everything inside, or be carried there, without."""
        for target in self.rng.uniform(-self.manners.edge, self.manners.edge, (TARGETS, 2)):
            track = self._towards(actor, target, kind == PICK_PLACE, start, end)
            contents = np.flatnonzero(self.inside == actor).tolist() if kind == PICK_PLACE else []
            if self._commit_if_clear(actor, kind, start, end, track, contents):
                return

    def _contain(self, cone: int, target: int, start: int, end: int) -> None:
        """Put a cone over an object."""
        track = self._towards(cone, self.plane[self.last - 1, target], True, start, end)
        contents = np.flatnonzero(self.inside == cone).tolist()
        if self._commit_if_clear(cone, CONTAIN, start, end, track, [*contents, target]):
            self.busy.add(target)
            self.inside[target] = cone
            self.within[end:, target] = cone + 1

    def _still(self, actor: int, start: int) -> _Track:
        frames = slice(start, self.last)
        return _Track(
            self.plane[frames, actor],
            self.low[frames, actor],
            self.top[frames, actor],
            self.reach[frames, actor],
            self.quaternion[frames, actor],
            self.height[frames, actor],
        )

    def _towards(self, actor: int, target: np.ndarray, is_carried: bool, start: int, end: int) -> _Track:
        """From where an object stands to another place, along the table or through the air."""
        share = np.arange(self.last - start) / (end - start)
        across = _eased(2 * share - 0.5 if is_carried else share)
        lift = np.zeros(len(share))
        if is_carried:
            lift = LIFT * np.minimum(_eased(4 * share), _eased(4 - 4 * share))
        begin = self.plane[start, actor]
        still = self._still(actor, start)
        # exactly at the target in the end, where a contained object must be right below its cone
        plane = begin + across[:, None] * (target - begin)
        plane[across >= 1] = target
        return still._replace(plane=plane, low=still.low + lift, top=still.top + lift, height=still.height + lift)

    def _commit_if_clear(
        self, actor: int, kind: int, start: int, end: int, track: _Track, concentric: list[int]
    ) -> bool:
        """Take an action unless the actor would meet another object.

        Args:
            actor: who acts.
            kind: what it does.
            start: first frame.
            end: last frame, in which it is at rest again.
            track: its motion from `start` to the end of the slot.
            concentric: objects that may be where the actor is as long as they have the same axis.
        """
        group = [actor] if kind in (PICK_PLACE, CONTAIN) else self._group(actor)
        others = np.array(
            [n for n in range(len(self.shape)) if n not in group and (not self.sheltered[n] or n in concentric)]
        )
        if len(others) and self._meets(track, others, start, concentric):
            return False
        moved = track.plane - self.plane[start : self.last, actor]
        for member in group:
            self.plane[start : self.last, member] += moved
            # the state after the slot
            self.plane[self.last :, member] = self.plane[self.last - 1, member]
        for name in ("low", "top", "reach", "height", "quaternion"):
            getattr(self, name)[start : self.last, actor] = getattr(track, name)
        self.reach[end + 1 :, actor] = self.radius[actor]
        self.top[end:, actor] = 2 * self.half[actor]
        self.height[end:, actor] = self.half[actor]
        self.quaternion[self.last :, actor] = track.quaternion[-1]
        if kind in (PICK_PLACE, CONTAIN):
            released = np.flatnonzero(self.inside == actor)
            self.inside[released] = -1
            self.within[start + 1 :, released] = 0
            self.sheltered[released] = False
            self.busy.update(released.tolist())
        self.busy.update(group)
        self.actions.append((actor, kind, start, end))
        return True

    def _meets(self, track: _Track, others: np.ndarray, start: int, concentric: list[int]) -> bool:
        frames = slice(start, self.last)
        apart = self.plane[frames][:, others] - track.plane[:, None]
        distance2 = apart[..., 0] ** 2 + apart[..., 1] ** 2
        meets = distance2 < (track.reach[:, None] + self.reach[frames][:, others] + GAP) ** 2
        meets &= track.low[:, None] < self.top[frames][:, others] + GAP
        meets &= self.low[frames][:, others] < track.top[:, None] + GAP
        if concentric:
            may_share = np.array([n in concentric for n in others.tolist()])
            meets &= ~(may_share & (distance2 < 1e-18))
        return bool(meets.any())


def _product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions [F, 4]: turns by `second` in the solid's own frame, then by `first`."""
    w, x, y, z = first.T
    a, b, c, d = second.T
    return np.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ],
        axis=-1,
    )
