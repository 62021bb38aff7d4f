"""What a model will cost, before it is there: memory of the cache, of training, and where attention overtakes the rest."""

import regard

for name in ("llama-2-7b", "llama-3-8b", "gemma-2b", "deepseek-v2"):
    cost = regard.cost(name, length=8192)
    cache = cost["kv_cache"]
    less = cache["per_token_of_all_heads"] / cache["per_token"]
    print(f"{name}: {cache['per_token']:,} bytes a token, {less:.1f} times less than if every query head had its own")

gpt3 = regard.cost("gpt3", length=2048, dtype="f16", train=True, chip="h100")
training = gpt3["training"]
print(
    f"GPT-3, training: {training['total'] / 1e12:.2f} TB; {training['attention_matrices'] / 1e12:.2f} TB more without a fused kernel"
)
print(f"attention overtakes the feed-forward layers at {gpt3['crossover']['feed_forward']:,} tokens")
print(f"a step of one text takes {gpt3['time']['training']['total_ns'] / 1e9:.2f} s on an H100 at least, if it had the memory")
