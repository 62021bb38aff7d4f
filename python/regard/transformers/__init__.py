"""regard under Hugging Face transformers: after `register()`, models take `attn_implementation="regard"`, in training and generation.

    import regard.transformers
    regard.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="regard")

Every model that transformers routes through its `AttentionInterface` works, with the masks that transformers asks for: causal, sliding
windows, chunks, packed sequences, padding on either side, caches of every kind, cross-attention. The result is that of `"eager"`, but
for the rows of a query that sees no key (padding on the left): eager averages all values there, regard returns zeros. Attention weights
are never formed, so `output_attentions=True` is refused.
"""

from __future__ import annotations

from transformers import AttentionInterface, AttentionMaskInterface

from .forward import attention_forward
from .masks import VisibleKeys, attention_mask

__all__ = ["VisibleKeys", "attention_forward", "attention_mask", "register", "unregister"]


def register(name: str = "regard") -> None:
    """Makes `attn_implementation=name` mean this package, for models that exist and for those to come; twice is as good as once.

    Raises:
        ValueError: `name` is already another implementation's.
    """
    given = AttentionInterface._global_mapping.get(name, attention_forward)
    if given is not attention_forward or name == "eager":
        raise ValueError(f"name is {name!r}, which is an attention implementation of transformers already: choose another")
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, attention_mask)


def unregister(name: str = "regard") -> None:
    """Takes `register(name)` back; models that still ask for it raise a KeyError when they run.

    Raises:
        ValueError: `name` is not registered, or is another implementation's.
    """
    if AttentionInterface._global_mapping.get(name) is not attention_forward:
        raise ValueError(f"name is {name!r}, which register() has not been called with")
    del AttentionInterface._global_mapping[name]
    del AttentionMaskInterface._global_mapping[name]
