"""Keep a pendulum upright with a fixed-point network that is proved to be within 0.001 Nm of the trained one.

What `sound-qkeras demo` does, step by step:

    python examples/pendulum.py --out out/pendulum
"""

import argparse
from typing import Any

import keras
import numpy as np

import sound_qkeras
from sound_qkeras.callbacks import SoundQuant
from sound_qkeras.cli.demo import STATES, expert, simulate, starts


def build(keras: Any) -> Any:
    """A 2-25-25-1 network of Keras 3 or of `tf_keras`, compiled for 60 epochs of 64 steps."""
    model = keras.Sequential(
        [
            keras.layers.Input((2,)),
            keras.layers.Dense(25, activation="relu"),
            keras.layers.Dense(25, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 60 * 64)), "mse")
    return model


def main(out: str) -> None:
    # 1. An expert shows what to do in 4096 states: angle up to 0.7 rad, velocity up to 2.5 rad/s.
    keras.utils.set_random_seed(0)
    states = STATES * np.random.default_rng(0).uniform(-1.0, 1.0, (4096, 2))
    torques = expert(states)

    # 2. A network learns to imitate it. The callback only needs a tolerance: it sees the box of inputs by itself.
    model = build(keras)
    sound = SoundQuant(eps=1e-3)
    model.fit(states, torques, batch_size=64, epochs=60, verbose=0, callbacks=[sound])
    result = sound.result
    if result is None:
        raise SystemExit(f"not quantised: {sound.error}")

    # 3. What is proved, for every state in the box, and what it costs.
    certificate = result.certificate
    print(f"box, {certificate.box_source}: {certificate.box.lower} to {certificate.box.upper}")
    print(f"proved: the torque is within {certificate.bound:.6f} Nm; worst found: {result.observed_error:.6f} Nm")
    for row in result.formats:
        print(f"  {row.node:14} {row.kind:12} {row.word_length:3} bits, {row.integer_bits:3} of them before the point")
    print(f"{result.cost.weight_bits} bits of weights, {result.cost.total_bits} with biases and activations")

    # 4. The fixed-point network closes the loop as well as the trained one.
    for name, controller in (("trained", result.pair.network.evaluate), ("fixed-point", result.simulate)):
        trajectory = simulate(controller, starts())
        rest, inside = abs(trajectory[-1, :, 0]).max(), bool(np.all(certificate.box.contains(trajectory)))
        print(f"{name}: after 5 s within {rest:.4f} rad of upright; always in the box: {inside}")

    # 5. On disk, and back: the same integers, and the same proof again.
    loaded = sound_qkeras.load(result.save(out))
    sound_qkeras.check(loaded.pair, loaded.certificate)
    print(f"saved in {out}, loaded and proved again")

    # 6. The QKeras model, with its weights set. In float64 it computes exactly the integers.
    with sound_qkeras.float64():
        exact = result.to_qkeras(dtype="float64")
        same = np.array_equal(exact.predict(states, verbose=0), result.simulate(states))
    print(f"the QKeras model in float64 equals the integers bit for bit: {same}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train, quantise and prove a pendulum's controller.")
    parser.add_argument("--out", default="out/pendulum", help="directory to save the result in")
    main(parser.parse_args().out)
