"""Convert a trained and saved Keras model to a certified QKeras model.

    python examples/convert_trained_model.py model.keras --eps 1e-3 --box -1 1 --out out/model
    python examples/convert_trained_model.py model.keras --eps 1e-3 --data x_train.npy --margin 0.05 --out out/model

`sound-qkeras quantize` does the same; this script is a start for your own.
"""

import argparse
import sys

import numpy as np

import sound_qkeras as sq
from sound_qkeras.errors import InfeasibleError, SoundQKerasError


def main() -> int:
    options = parse()
    box = tuple(options.box) if options.box else np.load(options.data)
    try:
        result = sq.quantize(options.model, options.eps, box, margin=options.margin, cost=options.cost)
        folder = result.save(options.out)
    except InfeasibleError as error:
        print(f"{error}\nthe best bound that was proved is {error.best_bound:.3g}", file=sys.stderr)
        return 3
    except SoundQKerasError as error:
        print(error, file=sys.stderr)
        return 2

    print(result.summary())
    for row in result.certificate.error_budget:
        print(f"  rounding only each {row.kind} of layer '{row.layer}': at most {row.bound:.3g}")
    print("layer by layer, what qkeras.utils.model_quantize takes:")
    for layer, quantizers in result.quantizer_config.items():
        print(f"  {layer}: {quantizers}")
    exact = "equals the integers bit for bit" if result.float32.exact else f"is within {result.float32.bound:.3g}"
    print(f"the float32 QKeras model {exact}; it is in {folder / 'qkeras_model.keras'}")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert a trained Keras model to a certified QKeras model.")
    parser.add_argument("model", help=".h5, .keras or SavedModel")
    parser.add_argument("--eps", type=float, required=True, help="tolerance in units of the output")
    box = parser.add_mutually_exclusive_group(required=True)
    box.add_argument("--box", type=float, nargs=2, metavar=("LO", "HI"), help="the same bounds for every input")
    box.add_argument("--data", help=".npy file of samples whose smallest and largest values are the bounds")
    parser.add_argument("--margin", type=float, default=0.0, help="widen the box by this share of its width")
    parser.add_argument("--cost", default="weight_bits", help="weight_bits, total_bits or bit_operations")
    parser.add_argument("--out", required=True, help="directory to save the result in")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
