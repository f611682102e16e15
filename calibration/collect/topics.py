"""Topics that a collection reads, live or out of a bag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim2real.errors import CollectionError
from sim2real.images.messages import IMAGE_TYPES, INFO_TYPE, JOINTS_TYPE, POSE_TYPE


@dataclass(frozen=True)
class Topics:
    """Names of topics; None for what is not recorded, empty for the only one of its type."""

    image: str = ""
    info: str | None = ""
    joints: str | None = ""
    pose: str | None = None

    def listed(self) -> str:
        """The topics that are recorded, in words."""
        return ", ".join(topic for topic in (self.image, self.info, self.joints, self.pose) if topic)


def find_topics(wanted: Topics, types: Mapping[str, str], where: str) -> Topics:
    """Fill in topics that were not named, where there is exactly one of the type.

    Of several CameraInfo topics the one beside the image's counts, as ROS's ``image_transport`` has it.

    Args:
        wanted: Topics as asked for.
        types: Message type by topic, of what there is.
        where: For errors.

    Raises:
        CollectionError: A topic is missing, of another type, or there are several to choose from.
    """
    image = _one("--image", wanted.image, IMAGE_TYPES, types, where)
    beside = [t for t in types if types[t] == INFO_TYPE and _folder(t) in (_folder(image), _folder(_folder(image)))]
    asked = beside[0] if wanted.info == "" and len(beside) == 1 else wanted.info
    return Topics(
        image,
        None if asked is None else _one("--info", asked, (INFO_TYPE,), types, where),
        None if wanted.joints is None else _one("--joints", wanted.joints, (JOINTS_TYPE,), types, where),
        None if wanted.pose is None else _one("--ee-pose", wanted.pose, (POSE_TYPE,), types, where),
    )


def _folder(topic: str) -> str:
    return topic.rpartition("/")[0]


def _one(option: str, name: str, kinds: tuple[str, ...], types: Mapping[str, str], where: str) -> str:
    having = sorted(topic for topic, kind in types.items() if kind in kinds)
    kind = " or ".join(kinds)
    leave = {"--info": " (or give --camera FILE, or --no-info)", "--joints": " (or record without: --no-joints)"}
    if name:
        if name in having:
            return name
        other = f"it is {types[name]}" if name in types else "it is not there"
        raise CollectionError(
            f"{where}: {option} {name} should be {kind}, {other}; of this type: {', '.join(having) or 'none'}"
            f"{leave.get(option, '')}"
        )
    if len(having) != 1:
        raise CollectionError(
            f"{where} has {len(having)} topics of {kind} ({', '.join(having) or 'none'}); choose one with {option}"
            f"{leave.get(option, '')}"
        )
    return having[0]
