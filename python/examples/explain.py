"""What a call will do before it does it, and another kernel where one is wanted."""

import numpy as np

import regard

rng = np.random.default_rng(0)
q = rng.standard_normal((1, 8, 2048, 64), dtype=np.float32)
k, v = rng.standard_normal((2, 1, 2, 2048, 64), dtype=np.float32)

print("kernels of this machine, best first:", ", ".join(regard.available_kernels()))
plan = regard.explain(q, k, v, causal="lower_right")
print(f"kernel        {plan.kernel}: {plan.why}")
print(f"operations    {plan.forward_flops / 1e9:.2f} GFLOP forward, {plan.backward_flops / 1e9:.2f} backward")
print(f"memory        {plan.bytes / 1e6:.1f} MB moved at least, {plan.memory / 1e6:.1f} MB of its own")
print(f"tiles         {plan.hidden_tiles} hidden, {plan.clear_tiles} clear, {plan.mixed_tiles} mixed")

best = regard.attention(q, k, v, causal="lower_right")
with regard.kernel("scalar"):  # for this thread, inside this block
    print(f"in the block  {regard.explain(q, k, v).kernel}")
    plain = regard.attention(q, k, v, causal="lower_right")
print(f"both agree to {abs(best - plain).max():.1e}")

# A row's bits depend on its query and the keys that it sees, not on threads.
before = regard.get_num_threads()
regard.set_num_threads(1)
print("the same bits with one thread:", np.array_equal(regard.attention(q, k, v, causal="lower_right"), best))
regard.set_num_threads(before)
