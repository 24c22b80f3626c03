"""Which activations stay in tiles between sparse layers, and that the results are torch's however they travel."""

import torch
from torch import nn

import graphprune as gp
from graphprune.passes import PruneWeights

WIDTH, TOKENS = 40, 37


class Block(nn.Module):
    """A transformer's feed-forward block after a projection, with a residual around each."""

    def __init__(self):
        super().__init__()
        self.project, self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 96), nn.Linear(96, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x):
        x = self.first(x + self.project(x))
        return self.second(x + self.down(nn.functional.gelu(self.up(x))))


class Gated(nn.Module):
    """A gated feed-forward block, whose gate and value meet in an element-wise product."""

    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(WIDTH, 56), nn.Linear(WIDTH, 56), nn.Linear(56, WIDTH)

    def forward(self, x):
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Scaled(nn.Module):
    """A root-mean-square norm, written out, and a residual branch scaled feature by feature."""

    def __init__(self):
        super().__init__()
        self.inner, self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 56), nn.Linear(56, WIDTH)
        self.weight, self.gamma = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(1, 1, WIDTH))

    def forward(self, x):
        x = x + self.gamma * self.inner(x)
        normal = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        return self.down(torch.tanh(self.up(normal)) * 0.5) + x


class Stream(nn.Module):
    """Blocks around a residual stream, each scaled, that begins and ends where no sparse layer is."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.inner = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.gammas = nn.ParameterList(torch.rand(WIDTH) for _ in range(3))

    def forward(self, x):
        x = x.cos()
        middle = x
        for i in range(3):
            x = x + self.gammas[i] * self.inner[i](self.norms[i](x))
            middle = x if i == 1 else middle
        return self.norms[3](x).sin(), middle.sin()


class Flattened(nn.Module):
    """Layers on a flattened batch of tokens."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 24), nn.Linear(24, 16)

    def forward(self, x):
        hidden = torch.relu(self.first(x.reshape(-1, WIDTH)))
        return self.second(hidden.view(2 * TOKENS, 1, 24).permute(1, 0, 2)).view(2, TOKENS, 16)


class SeveralUsers(nn.Module):
    """An activation that a sparse layer reads, and the caller."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 24), nn.Linear(24, 16)

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        return self.second(hidden), hidden


def compiled(model, *shape, **options):
    """Compile with nine tenths of the weights zero, compare with torch, and return it."""
    torch.manual_seed(0)
    x = torch.randn(*shape)
    graph = gp.prune(model.eval(), PruneWeights(sparsity=0.9, scope="layer"), (x,))
    fast = gp.compile(graph, **options)
    with torch.no_grad():
        expected, found = graph(x), fast(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    return fast


def forms(fast):
    """How each layer takes and gives activations, by the name of its weight."""
    return {layer.name: layer.note.rsplit(", ", 1)[-1] for layer in fast.report().layers}


def called(fast):
    """The kernels in the order of their calls."""
    return [call.kernel for call in fast.report().calls]


def test_feed_forward_blocks_stay_in_tiles_to_the_last_layer():
    fast = compiled(nn.Sequential(Block(), Block()), 1, TOKENS, WIDTH)
    found = forms(fast)
    assert found["0.up.weight"] == found["0.down.weight"] == found["1.up.weight"] == "tiles to tiles"
    assert found["1.down.weight"] == "tiles to tokens"  # the last norm's result goes to the caller
    assert called(fast).count("layer_norm_tiles") == 3 and called(fast).count("layer_norm_rows") == 1


def test_elementwise_ops_work_on_tiles_and_an_input_of_two_layers_is_changed_once():
    fast = compiled(Gated(), 2, TOKENS, WIDTH)
    assert set(forms(fast).values()) == {"tiles to tiles", "tiles to tokens"}
    assert called(fast).count("to_tiles") == 1 and "from_tiles" not in called(fast)


def test_norms_written_out_and_scales_of_features_work_on_tiles():
    found = forms(compiled(Scaled(), 2, TOKENS, WIDTH))
    assert found == {
        "inner.weight": "tokens to tiles",
        "up.weight": "tiles to tiles",
        "down.weight": "tiles to tokens",
    }


def test_a_residual_stream_changes_its_form_where_others_read_it():
    fast = compiled(Stream(), 2, TOKENS, WIDTH)
    assert forms(fast)["inner.1.weight"] == "tiles to tiles"
    kernels = called(fast)
    # The stream enters tiles once and leaves them in the middle, for the caller: the last addition reads that.
    assert (kernels.count("to_tiles"), kernels.count("from_tiles")) == (1, 1)


def test_views_that_keep_features_change_nothing():
    fast = compiled(Flattened(), 2, TOKENS, WIDTH)
    assert forms(fast) == {"first.weight": "tokens to tiles", "second.weight": "tiles to tokens"}


def test_what_others_read_too_stays_as_it_is():
    fast = compiled(SeveralUsers(), 5, WIDTH)
    assert set(forms(fast).values()) == {"tokens to tokens"}


def test_a_layer_turned_dense_gets_its_input_back(monkeypatch):
    """Layers whose kernel fails in tiles only after the layout was planned still get what they need."""
    from graphprune.backend import kernels
    from graphprune.errors import BackendError

    original = kernels.sparse_linear

    def failing(weight, *arguments):
        if weight.shape[0] == WIDTH:  # the second layer of the feed-forward block
            raise BackendError("out of order")
        return original(weight, *arguments)

    monkeypatch.setattr(kernels, "sparse_linear", failing)
    fast = compiled(Block(), 1, TOKENS, WIDTH)
    assert {layer.kernel for layer in fast.report().layers} == {"sparse_linear", "dense_linear"}
    assert "from_tiles" in called(fast)


def test_dense_layers_are_not_concerned():
    model = Block().eval()
    x = torch.randn(1, TOKENS, WIDTH)
    fast = gp.compile(model, example_inputs=(x,))
    torch.testing.assert_close(fast(x), model(x).detach(), rtol=1e-5, atol=1e-5)
    assert "tiles" not in str(fast.report())
