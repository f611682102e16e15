"""Bundles whose network is one linear layer: the arm tasks' own controllers, without training."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sim2real.config import load_config
from sim2real.learn.build import build_env, build_spec, robot_and_task
from sim2real.runtime.bundle import record_golden, write_bundle
from sim2real.runtime.policy import PolicyRunner
from sim2real.tasks.joint_actions import DAMPING_S, GAIN


def make_controller_bundle(path, name):
    """A bundle for the shipped configuration ``name`` that walks along ``joint_step``."""
    config = load_config(name)
    spec = build_spec(config)
    model, task = robot_and_task(config)
    joints = len(model.joints)
    weight, column = np.zeros((spec.observation_size, joints), np.float32), 0
    for term in spec.observation:
        gain = {"joint_step": GAIN, "joint_vel": -GAIN * DAMPING_S}.get(term.name, 0.0)
        if gain:
            weight[column : column + joints] = gain / term.scale / task.settings.speed * np.eye(joints)
        column += term.size * term.history
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "weight"], ["action"])],
        "controller",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", spec.observation_size])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["n", joints])],
        [numpy_helper.from_array(weight, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    data = made.SerializeToString()
    env = build_env(config, 0, robots=1, restart=False)
    still = env.sim.model.measure(env.sim.estimate(), env.goal)
    env.sim.close()
    return write_bundle(
        path,
        spec=spec,
        robot=model.spec,
        urdf=model.urdf.read_bytes(),
        provenance={"commit": "controller", "config": config.model_dump(mode="json", by_alias=True)},
        policy_onnx=data,
        estimator_onnx=None,
        golden=record_golden(PolicyRunner.from_onnx(spec, data, None), [still] * 5),
    )
