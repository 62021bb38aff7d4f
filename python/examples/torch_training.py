"""Training in PyTorch: gradients through regard's own function, and a model that is not changed at all, with `install()`."""

import torch
from torch.nn import functional as F

import regard.torch

torch.manual_seed(0)
torch.set_num_threads(1)  # the tensors are small


def train(model: torch.nn.Module, steps: int = 80) -> float:
    """To copy the token of four positions before, which only attention can."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        tokens = torch.randint(0, 16, (8, 32))
        loss = F.cross_entropy(model(tokens)[:, 4:].flatten(0, 1), tokens[:, :-4].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


class Copier(torch.nn.Module):
    """Embeddings and one encoder layer of PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(16, 64), torch.nn.Embedding(32, 64)
        self.layer = torch.nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.out = torch.nn.Linear(64, 16)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.out(self.layer(x))


model = Copier()
start = {name: value.clone() for name, value in model.state_dict().items()}
print(f"loss with PyTorch's attention: {train(model):.6f}")
model.load_state_dict(start)
regard.torch.install()  # every scaled_dot_product_attention on the CPU is regard's from here on
print(f"loss with regard under it:     {train(model):.6f}")
regard.torch.uninstall()

# What PyTorch's function has not: gradients of a bias and of attention sinks.
q, k, v = (torch.randn(2, 4, 50, 32, requires_grad=True) for _ in range(3))
bias, sinks = torch.randn(4, 50, 50, requires_grad=True), torch.zeros(4, requires_grad=True)
out = regard.torch.attention(q, k, v, bias=bias, sinks=sinks, causal="upper_left", dropout=(0.1, 42))
out.square().sum().backward()
print(f"gradients: bias {tuple(bias.grad.shape)}, sinks {[round(x, 3) for x in sinks.grad.tolist()]}")
