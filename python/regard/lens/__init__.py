"""What attention does: facts of every row, exact and in memory that is linear in the length; maps of any part; hooks for models.

    facts = regard.lens.inspect(q, k, v, causal="lower_right", window=(511, 0))
    facts.entropy  # [batch, q_heads, q_len]

    with regard.lens.watch(model) as seen:  # a Hugging Face model with attn_implementation="regard"
        model(**inputs)
    seen.facts.entropy  # [layers, batch, heads, q_len]
    seen.report(title="my model").save("report.html")

Facts are computed inside the fused kernel; no matrix of weights is formed. Attention weights show where a head reads, not what the model
does with it (Jain & Wallace 2019). Definitions: docs/lens.md.
"""

from __future__ import annotations

from regard._regard import Report

from .facts import Facts, inspect, map, received, weights
from .precision import precision
from .reading import Reading
from .watch import Watch, watch

__all__ = ["Facts", "Reading", "Report", "Watch", "inspect", "map", "precision", "received", "watch", "weights"]
