"""Experiment configuration: one YAML file an experiment, checked, with overrides from the command line."""

from __future__ import annotations

import difflib
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from sim2real.errors import ConfigError
from sim2real.files import LOCK, write_text
from sim2real.types import Model, Widths

CONFIGS = Path(__file__).parent / "configs"
_BARREN = ("config.yaml", "data.json", "dataset.json", "frames.jsonl", LOCK)  # of a run that has made nothing yet
log = logging.getLogger(__name__)
M = TypeVar("M", bound=BaseModel)


class SimConfig(Model):
    """The training simulator.

    Attributes:
        robots: Robots in one Bullet client.
        workers: Processes, each with its own client; two on two cores.
        decimation: Physics steps in one control step.
    """

    robots: int = Field(default=256, ge=1)
    workers: int = Field(default=2, ge=1)
    decimation: int = Field(default=2, ge=1)


class PPOConfig(Model):
    """PPO (Schulman et al. 2017) as in rsl-rl.

    Attributes:
        iterations: Rollout and update rounds.
        steps: Control steps of every robot in one rollout.
        learning_rate: At the start; it falls linearly to ``final_learning_rate``.
        hidden, critic_hidden: Widths of the layers.
        lstm: Width of an LSTM before the policy's layers; 0 for a policy without memory. The critic sees the physics
            and needs none (Peng et al. 2018).
        reward_scale: Rewards are multiplied by this; with about ``1 - gamma`` the critic's values are about one.
        critic_first: Iterations at the start in which only the critic learns; a policy that imitates a controller
            already would be spoilt by the advice of a critic that knows nothing.
        imitate: Gradient steps in each of the rounds in which the policy first imitates the task's expert, where
            the task has one; 0 to begin from noise.
        keep_best: The policy is that of the iteration with the best success in training, averaged over the
            iterations around it, in place of the last one.
        least_std: Exploration never gets quieter than this. A policy that trains under some noise
            to the end stays soft enough to bear errors in the parameters it is told.
    """

    iterations: int = Field(ge=1)
    steps: int = Field(default=24, ge=2)
    epochs: int = Field(default=3, ge=1)
    mini_batches: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    final_learning_rate: float = Field(default=1e-4, gt=0)
    gamma: float = Field(default=0.98, gt=0, lt=1)
    gae_lambda: float = Field(default=0.95, gt=0, le=1)
    clip: float = Field(default=0.2, gt=0)
    entropy: float = Field(default=0.0, ge=0)
    initial_std: float = Field(default=0.3, gt=0)
    least_std: float = Field(default=0.05, gt=0, le=1)
    hidden: Widths = (64, 64)
    critic_hidden: Widths = (128, 128)
    reward_scale: float = Field(default=1.0, gt=0)
    critic_first: int = Field(default=0, ge=0)
    lstm: int = Field(default=0, ge=0)
    imitate: int = Field(default=800, ge=0)
    keep_best: bool = False
    save_every: int = Field(default=20, ge=1)


class IdentifiedRanges(Model):
    """Randomization over what was identified from a robot's own recordings.

    Attributes:
        from_: Parameters file that 'sim2real identify' wrote (in YAML: ``from``).
        terms: Which of the robot's terms take part; those the file identified take its ranges.
    """

    model_config = ConfigDict(**Model.model_config, populate_by_name=True)

    from_: Path = Field(alias="from")
    terms: Literal["all"] | tuple[str, ...] = "all"


class OwnRanges(Model):
    """Randomization written down in the configuration itself.

    Attributes:
        ranges: Terms by name, as a robot's ``robot.yaml`` has them; one of the robot's own name takes its place.
        terms: Which of the robot's own terms take part besides.
    """

    ranges: dict[str, dict[str, Any]]
    terms: Literal["all"] | tuple[str, ...] = ()


_TAGGED: dict[str, type[BaseModel]] = {"{from: …}": IdentifiedRanges, "{ranges: …}": OwnRanges}


def _form_of_randomize(value: Any) -> str:
    """Tell which of the forms of 'randomize' is meant, so that only what is wrong with that one is said."""
    for tag, model in _TAGGED.items():
        if isinstance(value, model):
            return tag
    if isinstance(value, Mapping):
        return "{from: …}" if "from" in value or "from_" in value else "{ranges: …}"
    return "[…]" if isinstance(value, (list, tuple)) else "all"


class ExperimentConfig(Model):
    """One training run.

    Attributes:
        robot: A shipped robot, or a folder with a ``robot.yaml``.
        task: Its ``name`` (or ``module:Class``) and its settings.
        method: Its ``name`` (or ``module:Class``) and its settings; a plain name stands for ``{name: …}``.
        randomize: ``all`` of the robot's terms, a list of their names, ``{from: params.yaml}``: identified ranges,
            or ``{ranges: {NAME: TERM}}``: ranges of your own.
    """

    name: str
    robot: str
    task: dict[str, Any]
    method: dict[str, Any]
    randomize: Annotated[
        Annotated[Literal["all"], Tag("all")]
        | Annotated[tuple[str, ...], Tag("[…]")]
        | Annotated[IdentifiedRanges, Tag("{from: …}")]
        | Annotated[OwnRanges, Tag("{ranges: …}")],
        Discriminator(_form_of_randomize),
    ] = ()
    seed: int = 0
    sim: SimConfig = SimConfig()
    ppo: PPOConfig

    @model_validator(mode="before")
    @classmethod
    def _written(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for key in ("task", "method"):
            if isinstance(data.get(key), str):
                data[key] = {"name": data[key]}
        return _old_settings(data)

    @model_validator(mode="after")
    def _named(self) -> ExperimentConfig:
        for key, settings in (("task", self.task), ("method", self.method)):
            if not isinstance(settings.get("name"), str):
                raise ValueError(f"'{key}' needs a 'name'")
        robots = self.sim.robots * self.sim.workers
        rows = robots if self.ppo.lstm else robots * self.ppo.steps
        if rows < self.ppo.mini_batches:
            what = "robots (an LSTM learns whole sequences)" if self.ppo.lstm else "samples of a rollout"
            raise ValueError(
                f"'ppo.mini_batches' is {self.ppo.mini_batches}, there are only {rows} {what}; ask for fewer, or for "
                "more 'sim.robots'"
            )
        return self


def _old_settings(data: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were written before methods had settings of their own; accepted for one release."""
    old = {key: data.pop(key) for key in ("identify", "osi") if key in data}
    if any(old.values()):
        warnings.warn(
            "'identify' and 'osi' are settings of the method now: method: {name: up_osi, identify: […], rounds: …}",
            FutureWarning,
            stacklevel=2,
        )
        identify = {"identify": old["identify"]} if old.get("identify") else {}
        method = data.get("method")
        data["method"] = {**(method if isinstance(method, dict) else {}), **(old.get("osi") or {}), **identify}
    return data


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment: :func:`read_settings`, checked.

    Raises:
        ConfigError: The file is missing, is not YAML, or a key or value is wrong; it says which and suggests.
    """
    data, origin = read_settings(path, overrides)
    return validate_config(data, origin)


def read_settings(
    path: Path | str, overrides: Sequence[str] = (), shipped_in: Path = CONFIGS
) -> tuple[dict[str, Any], str]:
    """Settings as they are written, and the file they are from.

    Args:
        path: A YAML file, or the name of one that ships with the package (``up_osi``).
        overrides: ``key=value`` with dots for nesting and YAML values: ``ppo.iterations=10``.
        shipped_in: Folder of those that ship.

    Raises:
        ConfigError: The file is missing or is not YAML, or an override is none.
    """
    file = Path(path)
    if not file.is_file():
        shipped = shipped_in / f"{path}.yaml"
        if not shipped.is_file():
            names = ", ".join(sorted(p.stem for p in shipped_in.glob("*.yaml")))
            raise ConfigError(f"no configuration at {path}; give a YAML file or one of: {names}")
        file = shipped
    try:
        data = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} must hold a mapping of settings, not {type(data).__name__}")
    for override in overrides:
        _override(data, override)
    return data, str(file)


def task_name(data: dict[str, Any]) -> str:
    """Which task unchecked settings are for; empty where they do not say."""
    task = data.get("task")
    return str(task.get("name", "")) if isinstance(task, dict) else ""


def validate_config(data: dict[str, Any], origin: str) -> ExperimentConfig:
    """Check settings of a policy that were read from ``origin``; see :func:`validate`."""
    return validate(ExperimentConfig, data, origin)


def validate(model: type[M], data: dict[str, Any], origin: str) -> M:
    """Check settings that were read from ``origin``.

    Raises:
        ConfigError: Every wrong key or value, with a suggestion for a misspelt key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [f"{origin}:"]
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "(top level)"
            hint = _suggest(model, problem["loc"]) if problem["type"] == "extra_forbidden" else ""
            message = "unknown key" if hint or problem["type"] == "extra_forbidden" else problem["msg"]
            lines.append(f"  {where}: {message}{hint}")
        raise ConfigError("\n".join(lines)) from error


def prepare_run(config: BaseModel, run_dir: Path) -> None:
    """Make a run's folder with its ``config.yaml``, or check that it belongs to the same experiment.

    A start that failed before it made anything leaves a folder that the next one takes over.

    Raises:
        ConfigError: The folder holds a run of another configuration.
    """
    file, settings = run_dir / "config.yaml", config.model_dump(mode="json", by_alias=True)
    if file.is_file():
        before = yaml.safe_load(file.read_text())
        barren = isinstance(before, dict) and list(before) == list(settings) and _remove_barren(run_dir)
        if not barren and validate(type(config), before, str(file)) != config:
            raise ConfigError(
                f"{run_dir} holds a run with other settings (see {file}); choose another folder, or remove that one to "
                "train anew"
            )
        if not barren:
            return
    write_text(file, yaml.safe_dump(settings, sort_keys=False))


def _remove_barren(run_dir: Path) -> bool:
    """Remove what a start leaves that made nothing: settings, headers, events. False, and nothing, where there is more.

    The folder must be one that a run has written.
    """
    for file in run_dir.rglob("*"):
        barren = file.name in _BARREN or file.name.startswith("events.out.tfevents")
        if file.is_file() and not barren and file.stat().st_size:
            return False
    for entry in run_dir.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
    return True


def with_new_names(data: Any, **old: str) -> Any:
    """Settings with keys that were renamed under their new names; each old one is accepted for one release.

    For a ``model_validator(mode="before")``. A warning on stderr names the key.

    Args:
        data: As given to a model.
        old: New name of every old key.
    """
    if not isinstance(data, Mapping) or not set(data) & set(old):
        return data
    result = {key: value for key, value in data.items() if key not in old}
    for key in data:
        if key in old:
            log.warning("the setting '%s' is now '%s'; the old name goes with the next release", key, old[key])
            value, known = data[key], result.get(old[key])
            result[old[key]] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"'--set {override}' is not key=value, for example --set ppo.iterations=10")
    *parents, last = key.split(".")
    node = data
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'--set {override}': '{parent}' is a value, not a group of settings")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'--set {override}': the value is not valid YAML: {error}") from error


def _suggest(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    for part in location[:-1]:
        if str(part) in _TAGGED:
            model = _TAGGED[str(part)]
            continue
        field = model.model_fields.get(str(part))
        kinds = getattr(field.annotation, "__args__", (field.annotation,)) if field else ()
        found = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if found:
            model = found[0]
    close = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(model.model_fields)}"
