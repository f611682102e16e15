"""MuJoCo's renderer without a window, on the OpenGL platform of one's choice.

``mujoco.Renderer`` takes the platform that was set when MuJoCo was first imported, and aborts the process where there
is none; here it is chosen when a picture is wanted, and a missing one is an error with a remedy.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_drivers.limits import DriverError

PLATFORMS = ("egl", "osmesa")
_MOST_GEOMS = 2000


class Offscreen:
    """Draws one model.

    The platform is that of the environment variable ``MUJOCO_GL``, ``egl`` or ``osmesa``; EGL without it. Both draw in
    software where there is no GPU.

    Args:
        model: Compiled.
        width: px.
        height: px.

    Raises:
        DriverError: OpenGL's library is missing, or gives no context.
    """

    def __init__(self, model: Any, width: int, height: int) -> None:
        import mujoco

        self._mujoco, self._model = mujoco, model
        platform = os.environ.get("MUJOCO_GL", "").lower()
        platform = platform if platform in PLATFORMS else PLATFORMS[0]
        self._gl: Any = None
        try:
            self._gl = import_module(f"mujoco.{platform}").GLContext(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:  # each OpenGL platform has errors of its own
            self.close()
            raise DriverError(
                f"MuJoCo cannot draw here with {platform} ({type(error).__name__}: {error}): apt-get install libegl1 "
                "libgl1-mesa-dri, or libosmesa6 and MUJOCO_GL=osmesa"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, _MOST_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._area = mujoco.MjrRect(0, 0, width, height)
        self._option, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    @property
    def closed(self) -> bool:
        """True while it is."""
        return self._gl is None

    def close(self) -> None:
        """Free everything; harmless when closed."""
        if self._gl is not None:
            self._gl.free()
            self._gl = None

    def picture(self, data: Any, camera: int) -> NDArray[np.uint8]:
        """RGB [height, width, 3] through a camera of the model."""
        return self._draw(data, camera, self._option, False)

    def geoms(self, data: Any, camera: int, groups: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """Number of the geom that is seen [height, width]; -1 where none is.

        Args:
            data: Where everything is.
            camera: Number.
            groups: Draw these groups of geoms only; what is usually shown by default.
        """
        option = self._mujoco.MjvOption()
        if groups:
            option.geomgroup[:] = 0
            option.geomgroup[list(groups)] = 1
        colours = self._draw(data, camera, option, True).astype(np.int64)
        number = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2] - 1
        names = np.full(self._scene.ngeom + 1, -1, dtype=np.int64)  # the last is read for -1
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == self._mujoco.mjtObj.mjOBJ_GEOM:
                names[geom.segid] = geom.objid
        return names[np.where(number < self._scene.ngeom, number, -1)]

    def _draw(self, data: Any, camera: int, option: Any, numbers: bool) -> NDArray[np.uint8]:
        if self._gl is None:
            raise DriverError("the renderer is closed; make a new one")
        mj = self._mujoco
        self._gl.make_current()
        self._camera.fixedcamid = camera
        mj.mjv_updateScene(self._model, data, option, None, self._camera, mj.mjtCatBit.mjCAT_ALL.value, self._scene)
        self._scene.flags[mj.mjtRndFlag.mjRND_SEGMENT] = numbers
        self._scene.flags[mj.mjtRndFlag.mjRND_IDCOLOR] = numbers
        mj.mjr_render(self._area, self._scene, self._context)
        image = np.empty((self._area.height, self._area.width, 3), dtype=np.uint8)
        mj.mjr_readPixels(image, None, self._area, self._context)
        return np.ascontiguousarray(image[::-1])
