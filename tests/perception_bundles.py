"""A perception bundle whose network hardly learned anything, and one that looks for the reddest pixels."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sim2real.robots import robot_folder
from sim2real.runtime.camera import load_camera
from sim2real.runtime.perception import PerceptionSpec, table_homography, write_perception_bundle
from sim2real.runtime.translation import GATE, GENERATOR, file_hashes

HEIGHT_M = 0.02


def camera():
    return load_camera(robot_folder("so101") / "camera.yaml")


def spec_for(eye):
    return PerceptionSpec(
        robot="so101",
        object="what is red",
        width=eye.width,
        height=eye.height,
        matrix=tuple(map(tuple, eye.matrix.tolist())),
        T_base_camera=tuple(map(tuple, eye.T_base_camera.tolist())),
        height_m=HEIGHT_M,
        area=(0.1, 0.45, -0.35, 0.35),
    )


def red_finder(eye, std_m=0.004):
    """ONNX without training: the mean place of pixels, weighted by a steep function of how red each is."""
    homography = table_homography(eye, HEIGHT_M)
    v, u = np.mgrid[0 : eye.height, 0 : eye.width]
    points = np.stack((u.ravel(), v.ravel(), np.ones(u.size))).T @ homography.T
    places = (points[:, :2] / points[:, 2:]).astype(np.float32)
    places[(points[:, 2] <= 0.2) | (np.abs(places) > 1).any(axis=1)] = 0.0
    constants = {
        "redness": np.array([0.3, -0.15, -0.15], np.float32),
        "places": places,
        "flat": np.array([0, -1], np.int64),
        "std_value": np.full((1, 2), std_m, np.float32),
        "zero": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["light"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["light", "redness"], ["red"]),
        helper.make_node("Reshape", ["red", "flat"], ["rows"]),
        helper.make_node("Softmax", ["rows"], ["shares"], axis=1),
        helper.make_node("MatMul", ["shares", "places"], ["place"]),
        helper.make_node("Mul", ["place", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "std_value"], ["std"]),
    ]
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", eye.height, eye.width, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("place", "std")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def red_dot(eye, place, size=4):
    """An image [H, W, 3] with a red square around a place [2] m of the plane of the object's centre."""
    seen = np.linalg.inv(eye.T_base_camera) @ [*place, HEIGHT_M, 1.0]
    u, v = (eye.matrix @ (seen[:3] / seen[2]))[:2]
    image = np.full((eye.height, eye.width, 3), 90, np.uint8)
    image[::7] = 120
    rows, columns = np.mgrid[0 : eye.height, 0 : eye.width]
    image[(np.abs(rows - v) <= size / 2) & (np.abs(columns - u) <= size / 2)] = (220, 20, 20)
    return image


def make_red_bundle(path, std_m=0.004):
    eye = camera()
    images = np.stack([red_dot(eye, place) for place in ((0.25, 0.0), (0.3, 0.15), (0.2, -0.1))])
    return write_perception_bundle(path, spec_for(eye), {"commit": "red"}, red_finder(eye, std_m), images)


def leave_run(folder, network, passed=True, **more):
    """What a finished adaptation with this network leaves behind."""
    folder.mkdir(parents=True)
    (folder / GENERATOR).write_bytes(network)
    gate = {"passed": passed, "reasons": [] if passed else ["moves object"], "files": file_hashes(folder), **more}
    (folder / GATE).write_text(json.dumps(gate))
    return folder
