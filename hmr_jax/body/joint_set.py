"""What a joint set is, and short ways to write one.

This file needs nothing else: the tables of joint sets import it.
"""

import dataclasses


def mirrored_name(name: str) -> str:
    """The name of the joint on the other side of the body.

    Args:
        name: snake_case name in which ``left`` or ``right`` is one of the words.

    Returns:
        The name with the side exchanged; names without a side are their own mirror.
    """
    swap = {"left": "right", "right": "left"}
    return "_".join(swap.get(word, word) for word in name.split("_"))


@dataclasses.dataclass(frozen=True)
class JointSet:
    """An ordered set of named joints.

    Attributes:
        name: key in ``JOINT_SETS``.
        joints: unique names.
        parents: index of each joint's parent, -1 for a root; for drawing and, in
            ``smpl_24`` and ``mano_16``, for kinematics.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]

    def __post_init__(self):
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"joint set {self.name}: names are not unique")
        if len(self.parents) != len(self.joints):
            raise ValueError(
                f"joint set {self.name}: expected {len(self.joints)} parents, "
                f"got {len(self.parents)}"
            )

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Index of a joint by name.

        Args:
            joint: a name of this set.

        Returns:
            Its index.

        Raises:
            ValueError: the set has no such joint.
        """
        if joint not in self.joints:
            raise ValueError(
                f"joint set {self.name} has no joint {joint!r}; it has "
                f"{', '.join(self.joints)}"
            )
        return self.joints.index(joint)

    @property
    def flip_permutation(self) -> tuple[int, ...]:
        """Index of each joint's mirror image, for horizontally flipped pictures."""
        index = {joint: i for i, joint in enumerate(self.joints)}
        return tuple(index.get(mirrored_name(j), i) for i, j in enumerate(self.joints))

    @property
    def flip_pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of joints that change places in a mirror, smaller index first."""
        return tuple((i, j) for i, j in enumerate(self.flip_permutation) if i < j)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) pairs, for drawing."""
        return tuple((p, i) for i, p in enumerate(self.parents) if p >= 0)


def both(*names: str) -> tuple[str, ...]:
    """Each name for the left and then the right side."""
    return tuple(f"{side}_{name}" for name in names for side in ("left", "right"))


def one_side(side: str, *names: str) -> tuple[str, ...]:
    """Each name with one side before it."""
    return tuple(f"{side}_{name}" for name in names)


def make_set(name: str, joints: tuple[str, ...], parents: dict[str, str]) -> JointSet:
    """A set whose parents are given by name; unnamed joints are roots."""
    unknown = {n for pair in parents.items() for n in pair} - set(joints)
    if unknown:
        raise ValueError(f"joint set {name}: unknown joints {sorted(unknown)}")
    index = {joint: i for i, joint in enumerate(joints)}
    return JointSet(
        name,
        joints,
        tuple(index[parents[j]] if j in parents else -1 for j in joints),
    )


def parents_of(*chains: str) -> dict[str, str]:
    """Parents from chains written root first, for example ``"hip knee ankle"``."""
    parents: dict[str, str] = {}
    for chain in chains:
        words = chain.split()
        parents.update(zip(words[1:], words[:-1], strict=True))
    return parents
