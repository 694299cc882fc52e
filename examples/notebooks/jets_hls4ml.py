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
# # Jets with hls4ml: a project that computes the proved integers
#
# At a particle collider a **trigger** decides in about a microsecond which collisions are kept. Its small neural
# networks run on **FPGAs**, chips whose gates are wired anew for each program, and
# [hls4ml](https://fastmachinelearning.org/hls4ml/) writes that program. Here we train such a network in Keras 3,
# choose its integers with a proof, and let hls4ml build them. It takes about two minutes.
#
# You need `pip install 'sound-qkeras[hls]' matplotlib` and a C++ compiler. No FPGA tools are needed: hls4ml's project
# is compiled and run on this machine.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import sound_qkeras as sq

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## The data are a cartoon
#
# A **jet** is a spray of particles from one quark, one gluon, or one heavy particle that fell apart. Published sets
# of jets are large downloads, so we draw our own: up to 30 particles a jet, around one axis (quark, gluon), two (W
# boson) or three (top quark). The shapes are plausible and the physics is not: use this page for the method, and your
# own data for results.

# %%
CLASSES = ["quark", "gluon", "W", "top"]
AXES = [1, 1, 2, 3]  # how many directions the particles fly in
PARTICLES = [12, 20, 16, 20]  # how many there are, on average
WIDTH = [0.08, 0.13, 0.06, 0.07]  # how far from their axis


def draw(kind, jets, most=30):
    """Momentum fractions and positions of the particles of jets of one kind."""
    there = np.arange(most) < np.clip(rng.poisson(PARTICLES[kind], (jets, 1)), 4, most)
    momentum = rng.exponential(1.0, (jets, most)) ** 2 * there
    turn = (
        rng.uniform(0, 2 * np.pi, (jets, 1))
        + 2 * np.pi * np.arange(AXES[kind]) / AXES[kind]
    )
    apart = (AXES[kind] > 1) * rng.normal(0.28, 0.05, (jets, 1, 1))
    centre = apart * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    chosen = rng.integers(0, AXES[kind], (jets, most))
    place = np.take_along_axis(centre, chosen[..., None], axis=1) + rng.laplace(
        0, WIDTH[kind], (jets, most, 2)
    )
    return momentum / momentum.sum(axis=1, keepdims=True), place


def observables(momentum, place):
    """Ten numbers a jet, as triggers compute them."""
    place = place - (momentum[..., None] * place).sum(axis=1, keepdims=True)
    distance = np.hypot(*np.moveaxis(place, -1, 0))
    tensor = np.einsum("np,npi,npj->nij", momentum, place, place)
    small, large = np.moveaxis(np.linalg.eigvalsh(tensor), -1, 0)
    ordered = -np.sort(-momentum, axis=1)
    pairs = np.linalg.norm(place[:, :, None] - place[:, None], axis=-1)
    return np.stack(
        [
            (momentum > 0).sum(axis=1),  # number of particles
            np.sqrt(small + large),  # mass over momentum
            (momentum * distance).sum(axis=1),  # width
            np.sqrt((momentum**2).sum(axis=1)),  # how uneven momenta are
            ordered[:, 0],
            ordered[:, 1],
            ordered[:, :5].sum(axis=1),
            4 * small * large / (small + large) ** 2,  # 0 on a line, 1 in a disc
            np.einsum(
                "np,nq,npq->n", momentum, momentum, pairs
            ),  # two-point energy correlation
            (momentum * (distance < 0.1)).sum(axis=1),  # what is close to the centre
        ],
        axis=1,
    )


EACH = 4000
x = np.concatenate([observables(*draw(kind, EACH)) for kind in range(len(CLASSES))])
y = np.repeat(np.arange(len(CLASSES)), EACH)
x = np.clip(
    (x - x.mean(axis=0)) / x.std(axis=0), -4.0, 4.0
)  # a trigger's inputs are scaled and cut off
order = rng.permutation(len(x))
(x_train, x_test), (y_train, y_test) = (
    np.split(part[order], [12000]) for part in (x, y)
)

figure, axes = plt.subplots(1, 3, figsize=(10, 3))
for side, column, name in zip(
    axes,
    (0, 1, 7),
    ("number of particles", "mass / momentum", "planar flow"),
    strict=True,
):
    for kind, label in enumerate(CLASSES):
        side.hist(
            x[y == kind, column], bins=40, histtype="step", linewidth=1.5, label=label
        )
    side.set(xlabel=f"{name}, standardised", yticks=[])
axes[0].legend()
figure.tight_layout()

# %% [markdown]
# ## Training
#
# The network returns one number for each class, its **logit**; the largest logit is the decision. There is no softmax
# at the end, because a trigger does not need it.

# %%
layers = keras.layers
model = keras.Sequential(
    [
        layers.Input((10,)),
        layers.Dense(32, activation="relu"),
        layers.Dense(16, activation="relu"),
        layers.Dense(16, activation="relu"),
        layers.Dense(len(CLASSES)),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=128, epochs=15, verbose=0)
print(f"accuracy on other jets: {model.evaluate(x_test, y_test, verbose=0)[1]:.3f}")

# %% [markdown]
# ## Integers with a proof
#
# The **box** says what inputs there are: each between -4 and 4, because that is where they are cut off. **eps** is
# how far a logit may be from the trained network's: 0.5 here, where logits of different classes usually are several
# apart. `round_output=True` gives the logits few bits, which makes the next stage of a trigger smaller.
# `word_lengths=(2, 18)` keeps each number within one multiplier of the FPGA.

# %%
result = sq.quantize(
    model,
    eps=0.5,
    box=(-4.0, 4.0),
    task="classifier",
    samples=x_test,
    labels=y_test,
    round_output=True,
    word_lengths=(2, 18),
    effort="fast",
)
result

# %% [markdown]
# - *bound* is proved: no input in the box moves a logit further. *worst observed error* is what a search found.
# - *class proved* is the share of these jets whose decision is proved to be the same: their largest logit is ahead by
#   more than both bounds together. *agreement* is the share for which it is the same.
#
# ## The hls4ml project
#
# `to_hls4ml` gives hls4ml its own layers with our integers and writes down every type. Then hls4ml's C++ is compiled,
# and its outputs are compared with the integer network on 2,000 random inputs, corners and ties: **bit-exact** means
# that no bit differs.

# %%
project = result.to_hls4ml(
    "project", backend="Vitis", part="xc7z020clg484-1", clock_ns=5.0, overwrite=True
)
print(project.summary())
assert project.bit_exact

# %% [markdown]
# So the proof is about the project too. Here is hls4ml's own compiled network on the test jets, beside Keras. The
# difference is what quantisation costs; it has to stay left of the line, not only for these jets but for every input
# in the box.

# %%
hls = np.asarray(
    project.model.predict(np.ascontiguousarray(x_test, dtype=np.float32))
).reshape(len(x_test), -1)
trained = model.predict(x_test, verbose=0)
assert np.array_equal(hls, result.simulate(x_test.astype(np.float32)))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
left.hist(np.abs(hls - trained).max(axis=1), bins=50, color="#1f4e79")
left.axvline(
    result.observed_error,
    color="#c55a11",
    linestyle="--",
    label="worst found by a search",
)
left.axvline(result.certificate.bound, color="black", label="proved bound")
left.set(
    xlabel="largest difference of a logit", ylabel="jets", title="hls4ml against Keras"
)
left.legend()

decided, same = hls.argmax(axis=1), hls.argmax(axis=1) == trained.argmax(axis=1)
table = np.zeros((len(CLASSES), len(CLASSES)))
np.add.at(table, (y_test, decided), 1)
table /= table.sum(axis=1, keepdims=True)
right.imshow(table, cmap="Blues", vmin=0, vmax=1)
for row, column in np.ndindex(*table.shape):
    share = table[row, column]
    right.text(
        column,
        row,
        f"{share:.2f}",
        ha="center",
        va="center",
        color="white" if share > 0.6 else "black",
    )
right.set(xticks=range(4), xticklabels=CLASSES, yticks=range(4), yticklabels=CLASSES)
right.set(
    xlabel="decided by the integers",
    ylabel="true class",
    title=f"the same decision as Keras: {same.mean():.2%}",
)
figure.tight_layout()

# %% [markdown]
# ## What it costs
#
# This is an estimate from the integers alone: how many products and additions there are, how many **DSP** blocks
# multiply, and how many blocks of memory (**BRAM**) hold the weights if the multipliers are shared. For real numbers
# of your part, run hls4ml's `project.model.build()` where the vendor's tools are installed.

# %%
total = result.estimate_hardware().to_json()["total"]
print(
    {
        name: total[name]
        for name in ("products", "constant_adders", "sum_adders", "dsp", "bram")
    }
)

# %% [markdown]
# ## What a tolerance costs
#
# `sweep` quantises for several tolerances in one run. A looser one needs fewer bits; how loose is right, the
# decisions say.

# %%
curve = sq.sweep(
    model,
    [2.0, 1.0, 0.5, 0.25],
    box=(-4.0, 4.0),
    task="classifier",
    samples=x_test,
    labels=y_test,
    effort="fast",
)
for one in curve:
    eps, found = float(one.certificate.eps.max()), one.classification
    print(f"eps {eps}: same decision {found.agreement:.1%}, proved {found.proved:.1%}")
curve.plot()

# %% [markdown]
# ## Where to go from here
#
# - `eps="auto"` finds the largest tolerance that keeps the decision of a given share of the samples.
# - `cost="bit_operations"` chooses formats for multipliers instead of memory.
# - The guide *hls4ml and other hardware* has what hls4ml cannot do, and C++, C and Verilog without it.
