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
# # A small CNN, beside AutoQKeras
#
# A **convolutional network** (CNN) reads handwritten digits. We give it few bits in two ways: with a limit on the
# error that is stated for images like ours, and with [AutoQKeras](https://github.com/google/qkeras), which tries
# formats at random, trains each network for a while, and keeps what scored best. It takes about two minutes.
#
# You need `pip install 'sound-qkeras[study]' scikit-learn`.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import sound_qkeras as sq
from sklearn.datasets import load_digits

keras.utils.set_random_seed(0)

# %% [markdown]
# ## The digits
#
# 1,797 images of 8 by 8 pixels that scikit-learn brings along. We keep three parts apart: one trains, one chooses,
# and only the third says how good the result is.

# %%
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
images = (digits.images / 16.0)[order, :, :, None].astype(np.float32)
labels = digits.target[order]
(x_train, x_choose, x_test), (y_train, y_choose, y_test) = (
    np.split(part, [900, 1200]) for part in (images, labels)
)

figure, axes = plt.subplots(1, 10, figsize=(9, 1.3))
for side, image, label in zip(axes, x_train, y_train, strict=False):
    side.imshow(image[:, :, 0], cmap="gray_r")
    side.set(xticks=[], yticks=[], title=label)

# %% [markdown]
# ## Training in Keras 3
#
# The network returns ten **logits**, one number for each digit; the largest one decides.

# %%
layers = keras.layers
model = keras.Sequential(
    [
        layers.Input((8, 8, 1)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.Conv2D(12, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(10),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=32, epochs=20, verbose=0)
print(f"accuracy on the third part: {model.evaluate(x_test, y_test, verbose=0)[1]:.3f}")

# %% [markdown]
# ## Which promise?
#
# The strongest promise holds for every input in a **box**, here for every image whatever, grey noise among them. For
# a CNN that costs many bits. A weaker promise, another **tier**, often is the right one:
#
# - *sound*: for every image with pixels between 0 and 1.
# - *statistical*: for a new image drawn like the samples, the error exceeds **eps** with at most a stated
#   probability. Half of the samples choose the formats, and the other half, which nothing else has seen, is counted.
#
# In both, no number in the network ever overflows, for any image.

# %%
sound = sq.quantize(model, eps=2.0, box=(0.0, 1.0), cost="total_bits", effort="fast")
likely = sq.quantize(
    model,
    eps=2.0,
    box=(0.0, 1.0),
    cost="total_bits",
    tier="statistical",
    samples=np.concatenate([x_choose, x_test]),
    effort="fast",
)
for result in (sound, likely):
    print(result.summary(), end="\n\n")
print(likely.certificate.claim)

# %% [markdown]
# Both say how many bits the weights take (*weights*), and with what is passed from layer to layer (*total*). The
# float network has 32 bits a weight.
#
# ## Beside AutoQKeras
#
# `sq.compare` sets both ways, and others, beside each other: the same network, the same images, bits counted the same
# way. This is a short one, with three trials of AutoQKeras of ten epochs each, so do not read it as a verdict; longer
# studies with fifty trials are in the documentation.
#
# - *ours*: the statistical tier at several tolerances, and after twenty epochs of training with the formats fixed.
# - *uniform*: the same word length everywhere.
# - *autoqkeras*: the best of its trials, trained again for twenty epochs.

# %%
study = sq.compare(
    model,
    (x_train, y_train),
    eps=(8.0, 2.0),
    out="study",
    validation=(x_choose, y_choose),
    test=(x_test, y_test),
    box=(0.0, 1.0),
    methods=("ours", "uniform", "autoqkeras"),
    our_tiers=("statistical",),
    tier="statistical",
    modes=("random",),
    spaces=("fair",),
    trials=3,
    search_epochs=10,
    epochs=20,
    retrained=1,
    bits=(4, 8),
    effort="fast",
)
study

# %% [markdown]
# Each point is one candidate. Higher is more accurate, further left is smaller. Candidates for which no other one is
# better in both are joined by a line, the **Pareto front**.

# %%
study.plot()

# %%
for sentence in study.both_ways:
    print(sentence, end="\n\n")

# %% [markdown]
# ## Where to go from here
#
# - With more trials AutoQKeras finds better networks, and takes longer. The command `sound-qkeras compare` goes on
#   where it was when it is interrupted.
# - The guide *A deep CNN* explains the tiers, and how many samples a limit needs.
# - `sq.certify` says what is proved about a network that AutoQKeras, or anybody else, has quantised already.
