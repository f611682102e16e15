"""Bundles whose network is one linear layer: the arm tasks' own controllers, without training."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sim2real.config import load_config
from sim2real.learn.experiment import load_experiment
from sim2real.runtime.bundle import write_bundle
from sim2real.runtime.golden import record_golden
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.spec import group_size
from sim2real.tasks.joint_actions import DAMPING_S, GAIN


def make_controller_bundle(path, name):
    """A bundle for the shipped configuration ``name`` that walks along ``joint_step``."""
    config = load_config(name)
    experiment = load_experiment(config)
    spec, robot, task = experiment.spec(), experiment.robot, experiment.task
    terms, joints = spec.observation["observation"], len(spec.action)
    size = group_size(terms)
    weight, column = np.zeros((size, joints), np.float32), 0
    for term in terms:
        gain = {"joint_step": GAIN, "joint_vel": -GAIN * DAMPING_S}.get(term.name, 0.0)
        if gain:
            weight[column : column + joints] = gain / term.scale / task.settings.speed * np.eye(joints)
        column += term.size * term.history
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "weight"], ["action"])],
        "controller",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["n", joints])],
        [numpy_helper.from_array(weight, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    data = made.SerializeToString()
    env = experiment.make_env(0, 1, restart=False)
    still = task.signals.measure(env.sim.measured(), env.goal)
    env.sim.close()
    return write_bundle(
        path,
        spec=spec,
        robot=robot.spec,
        urdf=robot.urdf.read_bytes(),
        provenance={"commit": "controller", "config": config.model_dump(mode="json", by_alias=True)},
        policy_onnx=data,
        golden=record_golden(PolicyRunner.from_onnx(spec, data), [still] * 5),
    )
