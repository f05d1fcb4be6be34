"""64-bit numbers, spread evenly."""

from typing import Any

import numpy as np


def mix(values: np.ndarray) -> Any:
    """Spread 64-bit numbers evenly (the end of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
