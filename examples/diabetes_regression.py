"""Predict the progression of diabetes in fixed point, proved for every patient within the range of the training data.

Needs scikit-learn:

    python examples/diabetes_regression.py --out out/diabetes
"""

import argparse
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import sound_qkeras as sq


def build(keras: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """A 10-24-12-1 network of Keras 3 or of `tf_keras`, on raw measurements: the first layer standardises them."""
    normalise = keras.layers.Normalization(axis=-1)
    normalise.adapt(x)
    model = keras.Sequential(
        [
            keras.layers.Input((10,)),
            normalise,
            keras.layers.Dense(24, activation="relu", kernel_regularizer=keras.regularizers.l2(1e-2)),
            keras.layers.Dense(12, activation="relu", kernel_regularizer=keras.regularizers.l2(1e-2)),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(y.mean())),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    return model


def root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def main(out: str) -> None:
    keras.utils.set_random_seed(0)
    x, y = load_diabetes(return_X_y=True, scaled=False)
    x_train, x_test, y_train, y_test = train_test_split(x, y[:, None], test_size=0.2, random_state=0)
    model = build(keras, x_train, y_train)
    model.fit(x_train, y_train, batch_size=32, epochs=60, verbose=0)

    # The target runs from 25 to 346: a tenth of a unit is far below what the network gets wrong anyway.
    # The box is spanned by the training samples, and a tenth wider on every side.
    result = sq.quantize(model, eps=0.1, box=x_train, margin=0.1, box_source="10 % beyond the training samples")
    for note in result.pair.network.notes:
        print(f"note: {note}")
    print(result.summary())

    floating, fixed = model.predict(x_test, verbose=0), result.simulate(x_test)
    inside = np.all(result.certificate.box.contains(x_test), axis=1)
    errors = [root_mean_square(values - y_test) for values in (floating, fixed)]
    difference = abs(floating - fixed)[inside].max()
    print(f"root mean square error on unseen patients: {errors[0]:.2f} trained, {errors[1]:.2f} fixed-point")
    print(f"{inside.sum()} of {len(x_test)} of them lie in the box; there the two differ by at most {difference:.4f}")
    print(f"saved in {result.save(out)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train, quantise and prove a regression on diabetes data.")
    parser.add_argument("--out", default="out/diabetes", help="directory to save the result in")
    main(parser.parse_args().out)
