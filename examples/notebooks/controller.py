# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A controller: from training to C, with a proof
#
# A small neural network keeps a pendulum upright. We train it in Keras 3, turn it into integers, prove how far the
# integers can be from the trained network, and write C for a microcontroller. It takes about a minute.
#
# You need `pip install sound-qkeras matplotlib`, and a C compiler for the last part.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import sound_qkeras as sq
from sound_qkeras.backends import compile_and_run, program_size

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## The pendulum and its teacher
#
# The **state** is the angle from upright, in radians, and how fast it turns, in radians per second. A motor at the
# hinge gives a torque in newton metres (Nm). The teacher is a simple rule that the network will imitate: push against
# angle and speed, at most 6 Nm. Its corners, where the torque reaches 6 Nm, are what makes it more than a straight
# line.

# %%
LENGTH, MASS, GRAVITY, STEP = 0.5, 0.4, 9.81, 0.01  # m, kg, m/s^2, s
STATE = np.array([0.6, 3.0])  # the largest angle and speed that the sensors can deliver


def teacher(state):
    return np.clip(-12.0 * state[:, :1] - 2.0 * state[:, 1:], -6.0, 6.0)


def swing(controller, state, seconds=3.0):
    """Angles over time, with this controller in the loop."""
    angles = [state[:, 0]]
    for _ in range(round(seconds / STEP)):
        torque = controller(np.clip(state, -STATE, STATE))[:, 0]
        turn = GRAVITY / LENGTH * np.sin(state[:, 0]) + torque / (MASS * LENGTH**2)
        speed = state[:, 1] + STEP * turn
        state = np.stack([state[:, 0] + STEP * speed, speed], axis=1)
        angles.append(state[:, 0])
    return np.array(angles)


# %% [markdown]
# ## Training
#
# An ordinary Keras model, trained in floating point. Nothing about it is special.

# %%
states = rng.uniform(-STATE, STATE, (4000, 2))
model = keras.Sequential(
    [
        keras.layers.Input((2,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile(keras.optimizers.Adam(0.01), "mse")
history = model.fit(states, teacher(states), batch_size=64, epochs=30, verbose=0)
print(f"mean square error after training: {history.history['loss'][-1]:.5f} Nm^2")

# %% [markdown]
# ## A tolerance, and a proof
#
# A microcontroller without a floating-point unit computes with integers. A **fixed-point** number is an integer that
# stands for itself times a power of two: with 6 fractional bits the integer 100 stands for 100/64. How many bits each
# layer gets is its **format**. Few bits are cheap, and round more.
#
# We say two things:
#
# - the **box**: the smallest and largest value of every input. The sensors deliver nothing outside of it.
# - **eps**: how far the torque may be from the trained network's. Here 0.02 Nm, a third of a percent of the full
#   torque.
#
# `quantize` then looks for the cheapest formats that are *proved* to stay within eps, for every state in the box, not
# only for those in the training data.

# %%
box = (-STATE, STATE)
result = sq.quantize(model, eps=0.02, box=box)
result

# %% [markdown]
# The table has one bar for each tensor: *weights* and *biases* are stored, *activations* are what a layer passes on.
# A weight of an ordinary Keras model has 32 bits.
#
# The **certificate** is what was proved. Its **bound** is the largest distance that is possible by the proof;
# **observed** is the largest one that a search has found. The truth is between the two.

# %%
print(result.certificate.claim)
print(f"proved: at most {result.certificate.bound:.6f} Nm")
print(f"observed: {result.observed_error:.6f} Nm, at the state {result.observed_input}")

# %% [markdown]
# ## The error, everywhere
#
# With two inputs the whole box can be drawn. Each colour is the difference between the integers and the trained
# network. The proof says that no point of this map is beyond the bound, and no point between them either.

# %%
angle, speed = np.meshgrid(np.linspace(-0.6, 0.6, 201), np.linspace(-3.0, 3.0, 201))
grid = np.stack([angle.ravel(), speed.ravel()], axis=1)
error = result.simulate(grid) - model.predict(grid, verbose=0)
bound = result.certificate.bound

figure, axes = plt.subplots(figsize=(7, 4.2))
colours = axes.pcolormesh(
    angle, speed, error.reshape(angle.shape), cmap="RdBu_r", vmin=-bound, vmax=bound
)
axes.plot(*result.observed_input, "k^", markersize=9, label="worst error found")
axes.set(
    xlabel="angle (rad)",
    ylabel="speed (rad/s)",
    title="Fixed point minus trained network",
)
axes.legend(loc="upper right")
bar = figure.colorbar(colours, label="Nm; the ends are the proved bound")

# %% [markdown]
# ## Where the error comes from
#
# The first drawing is of the formats again. The second has what was proved beside what was found. The third says
# which roundings use up most of the tolerance.

# %%
result.plot()

# %% [markdown]
# ## Does it still balance?
#
# A bound on one torque is not a bound on the whole movement, because errors feed back. So we close the loop with both
# networks, from forty states that the teacher can hold.

# %%
starts = rng.uniform(-0.5, 0.5, (40, 2)) * STATE
trained = swing(lambda state: model.predict_on_batch(state), starts)
integers = swing(result.simulate, starts)
time = STEP * np.arange(len(trained))

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for side, angles, name in zip(
    axes, (trained, integers), ("trained network", "integers"), strict=True
):
    side.plot(time, angles, color="#1f4e79", alpha=0.4, linewidth=1)
    side.set(xlabel="seconds", title=name)
axes[0].set_ylabel("angle (rad)")
for name, angles in {"trained": trained, "integers": integers}.items():
    print(f"{name}: largest angle after 3 s {abs(angles[-1]).max():.4f} rad")

# %% [markdown]
# ## Keep it, and check it again
#
# The saved directory has everything that the claim needs. `check` proves it again from the files, and trusts nothing
# that chose the formats. (On the command line: `sound-qkeras verify out/`.)

# %%
loaded = sq.load(result.save("out"))
print("proved again:", sq.check(loaded.pair, loaded.certificate))

# %% [markdown]
# ## C for a microcontroller
#
# `export_hls` with `target="c"` writes plain C99: integers only, no allocation, no library. A **test bench** comes
# along: recorded inputs with the outputs that must come out, bit for bit. `compile_and_run` compiles it on this
# machine and runs it.

# %%
folder = result.export_hls("c", target="c", input_guard="saturate", overwrite=True)
bench = compile_and_run(folder)
print(f"{bench.vectors} test vectors, {bench.output_mismatches} mismatches")
assert bench.passed

# %% [markdown]
# **Flash** holds the code and the weights, **RAM** what changes while it runs. `program_size` compiles the network
# for size and counts: for a Cortex-M4 where `arm-none-eabi-gcc` is installed, else for this machine, whose code is
# larger or smaller than a microcontroller's and whose numbers take the same room.

# %%
print(program_size(folder).summary())
print(f"the trained weights alone, as float32: {4 * model.count_params()} bytes")

# %% [markdown]
# ## Where to go from here
#
# - The guide *A controller* has what else can be chosen: other costs, a rounded output, formats for each channel.
# - *Limits* says what is not guaranteed. Above all: outside of the box nothing is. `input_guard="saturate"`, which we
#   used, clamps such inputs to the input's format.
# - Change `eps` above and run it all again: ten times tighter costs about three more bits in each format.
