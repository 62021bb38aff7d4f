"""How far attention in a type of fewer bits lies from attention in float64."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from regard._regard import _precision

from .facts import Options, natural

if TYPE_CHECKING:
    from typing_extensions import Unpack


def precision(
    q: Any, k: Any, v: Any, *, rows: Iterable[int] | None = None, **options: Unpack[Options]
) -> dict[Literal["f32", "bf16", "f16"], npt.NDArray[np.float64]]:
    """The error of `regard.attention(q, k, v, **options)` against float64 if q, k and v are rounded to each type: `[batch, q_heads]`.

    It is the root mean square of the difference, over that of the outputs in float64, of some `rows`: queries, or at most 64 that are spread
    evenly. Infinite or NaN where a number is beyond the range of the type, as those above 65,504 are in f16. Dropout is left out.

    Raises what `regard.attention` raises, and `ValueError` or `TypeError` for rows that cannot be.
    """
    numbers = None if rows is None else [natural("rows", row) for row in rows]
    errors: dict[Literal["f32", "bf16", "f16"], npt.NDArray[np.float64]] = _precision(q, k, v, numbers, **options)
    return errors
