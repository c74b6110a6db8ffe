"""What the built-in watermark says, 32 bits, as signs spread over many weak places, and when a reading counts as found.

The 32 bits and four bits of format are six symbols of six bits; each is a row of a 32 x 32 Hadamard matrix or its
negative (a biorthogonal code, decoded exactly by 32 correlations). `SYNC_CHIPS` more signs are the same in every mark:
where they fit best, the mark begins. All places and signs are drawn from a key, by a hash, so that they never change.

**When a mark counts as found.** A detector reads one value a chip and adds up those that agree with the mark, weighted
as it likes. Over the draw of the key, in a file without this mark each term is a_i cos(phase_i), or a_i sign_i, with
independent uniform phases or signs, whatever the file shows. Of both the moments E exp(c term) are at most
exp(c^2 variance / 2), so that the sum, divided by the root of the sum of its variances, exceeds z with a probability of
exp(-z^2 / 2) at most (Chernoff). A search over H places and all 2^32 payloads finds such a one in at most
H 2^32 exp(-z^2 / 2) of all files; `threshold(H)` makes that 1e-6. Places may have thresholds of their own, as long as
the chances add up to 1e-6: a detector that searches in two steps gives each step half (`share`).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

PAYLOAD_BITS = 32
FORMAT = 1  # in four bits before the payload; another format of the mark counts up
SYMBOLS, SYMBOL_BITS = 6, 6
SYMBOL_CHIPS = 1 << SYMBOL_BITS - 1  # a row of the matrix; its sign is one more bit
FORMAT_BITS = SYMBOLS * SYMBOL_BITS - PAYLOAD_BITS
SYNC_CHIPS = 84  # 30 %: enough to find the place wherever the payload can just be read
CHIPS = SYNC_CHIPS + SYMBOLS * SYMBOL_CHIPS
FALSE_POSITIVE_RATE = 1e-6  # of a file
PUBLIC_KEY = "moviegen watermark, format 1"  # anybody can read marks made with it

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Reading:
    """The best that a search for the mark found in a file."""

    payload: int  # 32 bits; meaningless unless `found`
    score: float  # z of the whole mark
    threshold: float  # that a file without the mark exceeds with probability 1e-6 at most
    chip_accuracy: float  # share of the signs that came out as the payload says: 0.5 by chance
    bits: int = PAYLOAD_BITS  # the lowest of the payload, that it says

    @property
    def found(self) -> bool:
        return self.score > self.threshold

    @property
    def margin(self) -> float:
        return self.score - self.threshold


def threshold(hypotheses: int, share: float = 1.0) -> float:
    """The score that a search over so many places exceeds by chance in at most one of a million / share files."""
    bound = math.log(hypotheses) + PAYLOAD_BITS * math.log(2) - math.log(FALSE_POSITIVE_RATE * share)
    return math.sqrt(2 * bound)


def draw(key: str, purpose: str, count: int) -> NDArray[np.uint64]:
    """`count` uniform 64-bit numbers that depend on the key and the purpose alone, whatever is installed."""
    data = hashlib.shake_256(f"{purpose}\0{key}".encode()).digest(8 * count)
    return np.frombuffer(data, "<u8")


def encode(payload: int) -> NDArray[np.int8]:
    """The signs [CHIPS] of a payload; those of sync, all +1, come first."""
    if not 0 <= payload < 1 << PAYLOAD_BITS:
        raise ValueError(f"payload {payload} is not in 0 to 2^{PAYLOAD_BITS} - 1")
    word = FORMAT << PAYLOAD_BITS | payload
    signs = [np.ones(SYNC_CHIPS, np.int8)]
    for place in reversed(range(SYMBOLS)):
        symbol = word >> SYMBOL_BITS * place & (1 << SYMBOL_BITS) - 1
        row = _hadamard()[symbol % SYMBOL_CHIPS]
        signs.append(-row if symbol >= SYMBOL_CHIPS else row)
    return np.concatenate(signs)


def decode(values: Floats) -> int:
    """The payload whose signs fit `values` [CHIPS] best, by maximum likelihood."""
    word = 0
    for number, chips in enumerate(values[SYNC_CHIPS:].reshape(SYMBOLS, SYMBOL_CHIPS)):
        fit = _hadamard() @ chips
        fits = np.concatenate([fit, -fit])
        if number == 0:  # its first bits are the format's
            others = np.arange(fits.size) >> SYMBOL_BITS - FORMAT_BITS != FORMAT
            fits = np.where(others, -np.inf, fits)
        word = word << SYMBOL_BITS | int(np.argmax(fits))
    return word & (1 << PAYLOAD_BITS) - 1


def read(values: Floats, variances: Floats, needed: float) -> Reading:
    """Decode `values` [CHIPS] that a mark makes positive where its sign is +1.

    Args:
        values: one number a chip.
        variances: that of each over the draw of the key, where there is no mark.
        needed: the threshold for the places that were searched to find these values.
    """
    payload = decode(values)
    agreement = values * encode(payload)
    score = float(agreement.sum() / max(np.sqrt(variances.sum()), 1e-12))
    return Reading(payload, score, needed, float((agreement > 0).mean()))


def bit_accuracy(reading: Reading, payload: int) -> float:
    """Share of the bits of a reading that are those of a payload."""
    different = (reading.payload ^ payload) & (1 << reading.bits) - 1
    return 1 - different.bit_count() / reading.bits


@cache
def _hadamard() -> NDArray[np.int8]:
    rows = np.ones((1, 1), np.int8)
    while len(rows) < SYMBOL_CHIPS:
        rows = np.block([[rows, rows], [rows, -rows]])
    return rows
