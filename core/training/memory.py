"""Bytes that training needs, estimated without a run."""


def activation_bytes(
    *, tokens: int, length: int, layers: int, hidden: int, heads: int, bytes_per_number: int
) -> int:
    """Activations that a transformer keeps for the backward pass.

    Korthikanti et al. 2022 (arXiv 2205.05198), equation 2: ``34 + 5 * heads * length / hidden`` bytes a
    layer, token and hidden unit in 16-bit numbers; twice that in 32-bit ones.
    """
    per_token = layers * hidden * (34 + 5 * heads * length / hidden)
    return int(tokens * per_token * bytes_per_number / 2)
