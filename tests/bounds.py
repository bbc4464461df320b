"""How far the numbers of two correct programs may be apart that add the same terms in another order.

The order of additions depends on the vector width of the processor, on the number of threads and on the versions of the
libraries. So a bound must not be what happened to hold on one machine: it follows from the number of additions behind a
number and from the size of the values.

Each addition rounds its result by a relative error of at most u, the unit roundoff (2^-24 in float32). The errors of n
additions have random signs, so their sum is at most k * u * sqrt(n) times the size of the values, except with a
probability of 2 * exp(-k^2 / 2) (Higham and Mary 2019, "A new approach to probabilistic rounding error analysis",
theorem 3.1). Layers follow each other, so the n of a network is the sum of the lengths of its dot products on the way
from the pixels to the number: 70,000 in ResNet-50 with the grid layer, up to 100,000 with the transformer. That is a
relative error of at most k * 2e-5; it is ten times smaller in practice, because sums run in blocks.

Most numbers are compared within the tolerance that the golden set's README recommends for their kind. The bounds for
single values below are at most the above for k = 1 where values are of order 1. Averages over many values are held
to much less, since their errors cancel.
"""

from __future__ import annotations

UNIT_ROUNDOFF = 2.0**-24
"""Half the distance from 1 to the next larger float32."""

CONFIDENCE = 4
"""k: one number in 1,500 is further off, if all errors are as large as the theorem allows."""

# Forward pass in float32

SCORE = 2e-5
"""Absolute, of logits and pooler outputs of order 1 and below (README, 2.2)."""

FEATURE = 5e-5
"""Absolute, of single values of stages, embeddings and the last layer, of order 1 to 10 (README, 2.2)."""

AVERAGE = 2e-6
"""Mean, deviation and L2 norm over a whole tensor, relative to the value, or to the root mean square where the value is
smaller (README, 2.2). The rounding errors of thousands of values cancel. The minimum and the maximum are no averages
but single values, to which `SCORE` and `FEATURE` apply."""

# Training

LOSS_ABSOLUTE, LOSS_RELATIVE = 1e-5, 1e-6
"""A float32 loss of the first updates may be off by the sum of both (README, 3.1)."""

FIRST_NORM = 1e-4
"""Relative, of the first update's gradient norm in float32 (README, 3.1). The original adds up 2.4 million squares of
one parameter in float32, which has an error of u * sqrt(2.4e6) = 9e-5; the square root halves it."""

ONE_GRADIENT = 1e-3
"""Relative, of the gradient of one parameter in float32. 2 * 72,000 additions lead to it, forward and backward: 2.3e-5
times the ratio of its terms to their sum. One ReLU that switches changes it by 1e-4 in the set beside these tests."""

ZERO_GRADIENT = 1e-6
"""Absolute, of a gradient that is zero in exact arithmetic: softmax does not see a number that is added to all keys or
to all scores. What remains is the rounding of terms of up to 1, of which there are up to 100."""

UPDATED_VALUE = 5e-6
"""Absolute, of a parameter after an update in float32 (README, 3.1)."""

EXACT_NORM = 1e-9
"""Relative, of a gradient norm in float64, at every update.

Training amplifies rounding errors by the same factor in both precisions, and the unit roundoffs are a factor of 2^-29
apart. In float32 the stored norms are off by up to 0.02, of which 2^-29 is 4e-11. The rest is a margin for runs that
amplify more."""

EXACT_VALUE = 1e-12
"""Absolute, of a parameter of order 1 in float64: a thousandth of the smallest differences between float32 and float64.
Rounding needs 1e-15. Averaging accumulated gradients needs 1e-13, because the 1e-6 that clipping adds to the norm is
then added to a fraction of it."""

POOLED = 1e-6
"""Absolute, of losses, pooled scores and their gradients, which follow from logits of order 1 by up to 100 additions:
u * sqrt(100) is 6e-7 (README, 4). Relative where the loss is larger, or a tenth of the largest logit."""

ONE_UPDATE_ABSOLUTE, ONE_UPDATE_RELATIVE = 1e-7, 1e-6
"""A float32 parameter after an update of the optimiser alone, some ten operations, may be off by the sum of both. Decay
before and after the update differ by more."""

RATE = 1e-9
"""Relative, of a learning rate: a few operations in float64, stored with ten digits."""

PERCENTAGE = 1e-6
"""Absolute, of a score in percent or a rank: means in float64, stored with eight digits."""

# Pixels of 0..255 in float32

NORMALISED_PIXEL = 1e-4
"""Absolute: three operations with a result of up to 255 have an error of 3 * u * 255 = 5e-5."""

NORMALISED_SHARE = 1e-6
"""The same for pixels of 0..1, whose results are of order 1."""

RESIZED_PIXEL = 1e-3
"""Absolute: the weights of bilinear interpolation come from positions of up to 1,000 pixels, off by u * 1000 (README,
6)."""

JPEG_PIXEL, VIDEO_PIXEL = 2.0, 3.0
"""Absolute: decoders of one picture, or of one video and its conversion from YUV, round differently (README, 6)."""


def logged(loss: float, parts: int = 1) -> float:
    """Return the absolute bound for a loss that is computed in float64 and logged in float32.

    The loop converts the loss of each of `parts` micro batches to float32, weights it and adds it up: three roundings.
    """
    return 3 * parts * UNIT_ROUNDOFF * abs(loss)
