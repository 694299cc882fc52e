"""A controller from training to certificate: what `sound-qkeras demo` runs.

A pendulum is to be kept upright by a motor whose torque is limited to less than gravity's: a 2-25-25-1 network learns the
controller by imitating one that is known, and is quantised within 0.001 Nm of what it learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.results.result import Result
from sound_qkeras.support.deadline import put_in_place
from sound_qkeras.support.files import check_writable
from sound_qkeras.support.progress import Progress, silent
from sound_qkeras.types import Reals

# From states `(n, 2)`, angle from upright in rad and angular velocity in rad/s, to torques `(n, 1)` in Nm.
Controller = Callable[[Reals], Reals]

EPS = 1e-3
GRAVITY, LENGTH, MASS, FRICTION = 9.81, 1.0, 1.0, 0.1
MAX_TORQUE = 6.0
STATES = np.array([0.7, 2.5])
STARTS = np.array([0.35, 0.6])
TIME_STEP, STEPS = 0.02, 250
EPOCHS, BATCH, SAMPLES = 60, 64, 4096


def expert(states: Reals) -> Reals:
    """The controller to be imitated: proportional and derivative, with a smooth limit."""
    wanted = -20.0 * states[:, :1] - 6.0 * states[:, 1:]
    return MAX_TORQUE * np.tanh(wanted / MAX_TORQUE)


def derivative(states: Reals, torques: Reals) -> Reals:
    """Time derivative of the states."""
    moment = MASS * GRAVITY * LENGTH * np.sin(states[:, :1]) + torques - FRICTION * states[:, 1:]
    return np.concatenate([states[:, 1:], moment / (MASS * LENGTH**2)], axis=1)


def simulate(controller: Controller, starts: Reals) -> Reals:
    """Trajectories `(steps + 1, n, 2)` of the closed loop, the torque limited and held for each step (Runge-Kutta 4)."""
    states, h = starts, TIME_STEP
    trajectory = [states]
    for _ in range(STEPS):
        torques = np.clip(controller(states), -MAX_TORQUE, MAX_TORQUE)
        a = derivative(states, torques)
        b = derivative(states + h / 2 * a, torques)
        c = derivative(states + h / 2 * b, torques)
        d = derivative(states + h * c, torques)
        states = states + h / 6 * (a + 2 * b + 2 * c + d)
        trajectory.append(states)
    return np.stack(trajectory)


def starts(per_axis: int = 7) -> Reals:
    """A grid of states from which the expert brings the pendulum upright, shape `(n, 2)`."""
    angles, velocities = np.meshgrid(*(np.linspace(-end, end, per_axis) for end in STARTS))
    return np.stack([angles.ravel(), velocities.ravel()], axis=1)


@dataclass(frozen=True)
class ClosedLoop:
    """Both controllers from the same starts.

    Args:
        starts: how many.
        float_rest, fixed_rest: the largest angle left at the end, in rad.
        distance: the largest difference of the two angles at any time, in rad.
        inside: whether every state of both lay in the box the bound is proved for.
    """

    starts: int
    float_rest: float
    fixed_rest: float
    distance: float
    inside: bool


def close_the_loop(result: Result) -> ClosedLoop:
    """Simulate the pendulum with the trained network and with its fixed-point network."""
    first = starts()
    floating = simulate(result.pair.network.evaluate, first)
    fixed = simulate(result.simulate, first)
    box = result.certificate.box
    inside = np.all(box.contains(floating)) and np.all(box.contains(fixed))
    rest, fixed_rest = (float(np.abs(trajectory[-1, :, 0]).max()) for trajectory in (floating, fixed))
    return ClosedLoop(len(first), rest, fixed_rest, float(np.abs(floating - fixed)[..., 0].max()), bool(inside))


@dataclass(frozen=True)
class Outcome:
    """What the demonstration produced: the certified controller, how well it imitates, and how it controls."""

    result: Result
    imitation_error: float
    closed_loop: ClosedLoop

    def summary(self) -> str:
        """Two lines: how well the network imitates, and what it does to the pendulum."""
        loop = self.closed_loop
        return (
            f"the network imitates the expert within {self.imitation_error:.2g} Nm (root mean square)\n"
            f"closed loop: {STEPS * TIME_STEP:g} s after {loop.starts} starts the pendulum is within "
            f"{loop.float_rest:.2g} rad of upright with the trained controller, {loop.fixed_rest:.2g} rad with the "
            f"fixed-point one; their angles never differ by more than {loop.distance:.2g} rad; "
            f"{'every state was' if loop.inside else 'NOT every state was'} inside the proved box"
        )


def build() -> Any:
    """The untrained network, compiled: 2-25-25-1 with ReLU."""
    from sound_qkeras.keras_io.session.environment import import_keras

    keras = import_keras()
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((2,), name="state"),
            layers.Dense(25, activation="relu", name="hidden_1"),
            layers.Dense(25, activation="relu", name="hidden_2"),
            layers.Dense(1, name="torque"),
        ],
        name="pendulum",
    )
    rate = keras.optimizers.schedules.CosineDecay(1e-2, EPOCHS * SAMPLES // BATCH)
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


def training_data(rng: np.random.Generator) -> tuple[Reals, Reals]:
    """States all over the box, its corners included, and what the expert does there."""
    states = STATES * rng.uniform(-1.0, 1.0, (SAMPLES, 2))
    states[:4] = STATES * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    return states, expert(states)


def run(out: str | Path, report: Progress = silent, seed: int = 0) -> Outcome:
    """Train, quantise, save to `out`, export to `out/hls` and close the loop.

    Args:
        out: directory to write; an earlier result there is replaced.
        report: told a stage's name and the fraction of it that is done.
        seed: of data and training.

    Raises:
        InputError: `out` cannot be written.
        VerificationError: a controller does not bring the pendulum upright.
        DependencyError: TensorFlow, tf_keras or QKeras is missing.
    """
    from sound_qkeras.callbacks import SoundQuant
    from sound_qkeras.keras_io.session.environment import import_keras

    check_writable(out)
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    states, torques = training_data(np.random.default_rng(seed))
    shown = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: report("train", (epoch + 1) / EPOCHS))
    sound = SoundQuant(EPS, progress=report)
    model = build()
    report("train", 0.0)
    history = model.fit(states, torques, BATCH, EPOCHS, verbose=0, callbacks=[shown, sound])
    if sound.result is None:
        raise sound.error or VerificationError("the callback gave neither a result nor a reason")
    report("save", 0.0)
    with put_in_place():
        sound.result.save(out)
        report("export C++", 0.0)
        sound.result.export_hls(Path(out) / "hls")
    report("close the loop", 0.0)
    loop = close_the_loop(sound.result)
    if max(loop.float_rest, loop.fixed_rest) > 0.05:
        raise VerificationError(f"a controller leaves the pendulum up to {loop.fixed_rest:.2g} rad from upright")
    return Outcome(sound.result, float(np.sqrt(history.history["loss"][-1])), loop)
