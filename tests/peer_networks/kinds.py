"""Networks of other kinds: graphs, radiance fields, recommendation, style transfer, volumes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.peer_networks.base import Net, conv, image, network, rows


@network
class RadianceField(Net):
    """NeRF: sines and cosines of coordinates, a skip connection by concatenation, two heads."""

    inputs = staticmethod(lambda: (torch.randn(7, 3), torch.randn(7, 3)))

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(4))
        self.a, self.b, self.c = nn.Linear(27, 16), nn.Linear(16, 16), nn.Linear(43, 16)
        self.density, self.feature = nn.Linear(16, 1), nn.Linear(16, 16)
        self.d, self.colour = nn.Linear(43, 8), nn.Linear(8, 3)

    def encode(self, x: Tensor) -> Tensor:
        angles = (x[..., None] * self.frequencies).flatten(-2)
        return torch.cat([x, angles.sin(), angles.cos()], -1)

    def forward(self, position: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        position, direction = self.encode(position), self.encode(direction)
        x = torch.relu(self.b(torch.relu(self.a(position))))
        x = torch.relu(self.c(torch.cat([x, position], -1)))
        colour = self.colour(torch.relu(self.d(torch.cat([self.feature(x), direction], -1))))
        return torch.sigmoid(colour), functional.softplus(self.density(x))


@network
class GraphConvolution(Net):
    """Neighbours averaged by a dense adjacency matrix, attention between nodes, read out by a sum."""

    inputs = staticmethod(lambda: (torch.randn(2, 6, 5), (torch.rand(2, 6, 6) > 0.4).float()))

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.own = nn.Linear(5, 8, bias=False), nn.Linear(8, 8), nn.Linear(8, 8)
        self.source, self.target = nn.Linear(8, 2, bias=False), nn.Linear(8, 2, bias=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        degree = adjacency.sum(-1, keepdim=True).clamp(min=1)
        x = torch.relu(adjacency @ self.a(x) / degree)
        x = torch.relu(self.own(x) + torch.bmm(adjacency, self.b(x)))
        scores = self.source(x).unsqueeze(2) + self.target(x).unsqueeze(1)
        scores = scores.masked_fill(adjacency.unsqueeze(-1) == 0, -1e9).softmax(2)
        y = torch.einsum("bijh,bjc->bihc", scores, x).flatten(2)
        return self.head(y.sum(1))


@network
class MessagePassing(Net):
    """Edges as indices: gathered, computed on, scattered back."""

    inputs = staticmethod(lambda: (torch.randn(6, 5), torch.randint(0, 6, (2, 11))))

    def __init__(self) -> None:
        super().__init__()
        self.node, self.edge, self.update = nn.Linear(5, 8), nn.Linear(16, 10), nn.Linear(18, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = torch.relu(self.node(x))
        messages = torch.relu(self.edge(torch.cat([x[edges[0]], x[edges[1]]], 1)))
        total = torch.zeros(x.shape[0], 10).index_add(0, edges[1], messages)
        return self.head(x + self.update(torch.cat([x, total], 1))).mean(0)


@network
class Recommendation(Net):
    """DLRM: embedding bags, pairwise dot products, the lower triangle of them."""

    inputs = staticmethod(lambda: (torch.randn(2, 5), torch.randint(0, 9, (3, 2, 4))))

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(9, 8, mode=mode) for mode in ("sum", "mean", "sum"))
        self.bottom = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(8 + 6, 10), nn.ReLU(), nn.Linear(10, 1))

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        x = self.bottom(dense)
        features = torch.stack([x, *(table(categories[i]) for i, table in enumerate(self.tables))], 1)
        products = torch.bmm(features, features.transpose(1, 2))
        row, column = torch.tril_indices(4, 4, -1)
        return torch.sigmoid(self.top(torch.cat([x, products[:, row, column]], 1)))


@network
class VolumeNet(Net):
    """3-D convolutions, transposed ones, and a plane taken out of the volume."""

    inputs = staticmethod(lambda: (torch.randn(2, 1, 4, 8, 8),))

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6)
        self.b, self.c = nn.Conv3d(6, 8, 3, stride=2, padding=1), nn.ConvTranspose3d(8, 6, 2, 2)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.norm(self.a(x)))
        return self.head((a + self.c(torch.relu(self.b(a))))[:, :, 1])


@network
class ChannelAttention(Net):
    """CBAM and ECA: pooled by mean and maximum, a shared perceptron, convolution over the channels, over the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = conv(3, 8), nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.space, self.out = nn.Conv2d(2, 1, 3, padding=1), conv(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        mean, most = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.shared(mean) + self.shared(most))
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
        return self.head(self.out(x * torch.sigmoid(self.space(maps))).mean((2, 3)))


@network
class QuantisationStubs(Net):
    """Stubs of eager quantisation around a float model."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.a, self.b, self.add = conv(3, 6), conv(6, 6), torch.ao.nn.quantized.FloatFunctional()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.enter(x))
        return self.leave(self.head(self.add.add(x, self.b(x)).mean((2, 3))))


@network
class Highway(Net):
    """A learnt gate and its complement; maximum of branches; products of branches."""

    inputs = staticmethod(rows)

    def __init__(self) -> None:
        super().__init__()
        self.start, self.plain, self.gate = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 9)
        self.other, self.head = nn.Linear(9, 18), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.start(x))
        gate = torch.sigmoid(self.gate(x))
        x = gate * torch.relu(self.plain(x)) + (1 - gate) * x
        return self.head(torch.maximum(x, self.other(x).view(-1, 2, 9).amax(1)))


@network
class MaximumOut(Net):
    """Units in pairs of which the greater passes, neighbours in the other order."""

    inputs = staticmethod(rows)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 16), nn.Linear(8, 12), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).view(-1, 8, 2).max(-1)[0]
        return self.head(self.b(x).unflatten(1, (2, 6)).max(1).values)


@network
class Bilinear(Net):
    """A bilinear layer, an outer product flattened, a difference of all pairs."""

    inputs = staticmethod(rows)

    def __init__(self) -> None:
        super().__init__()
        self.start, self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(8, 4)
        self.bilinear = nn.Bilinear(5, 4, 7)
        self.outer, self.pairs, self.head = nn.Linear(20, 7), nn.Linear(25, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.start(x))
        a, b = torch.relu(self.a(x)), torch.relu(self.b(x))
        outer = torch.einsum("ni,nj->nij", a, b).flatten(1)
        pairs = (a[:, :, None] - a[:, None, :]).abs().flatten(1)
        return self.head(self.bilinear(a, b) + self.outer(outer) + self.pairs(pairs))


@network
class Deformed(Net):
    """Sampled at computed coordinates, unfolded and folded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.offset = conv(3, 6), nn.Conv2d(6, 2, 1)
        self.mix, self.head = nn.Linear(24, 24), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = functional.grid_sample(x, torch.tanh(self.offset(x)).permute(0, 2, 3, 1), align_corners=False)
        patches = functional.unfold(x, 2, stride=2).transpose(1, 2)
        return self.head(functional.fold(self.mix(patches).transpose(1, 2), (8, 8), 2, stride=2))


@network
class InstanceNormStyle(Net):
    """Style transfer: instance norms, reflection padding, statistics of one map given to another."""

    inputs = staticmethod(lambda: (*image(), *image()))

    def __init__(self) -> None:
        super().__init__()
        norm = nn.InstanceNorm2d(8, affine=True)
        self.encode = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3), norm, nn.ReLU())
        self.decode = nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(8, 6, 3), nn.ELU(), nn.Conv2d(6, 3, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = self.encode(x), self.encode(y)
        normal = (a - a.mean((2, 3), keepdim=True)) / (a.var((2, 3), keepdim=True) + 1e-5).sqrt()
        return self.decode(normal * b.std((2, 3), keepdim=True) + b.mean((2, 3), keepdim=True))


@network
class RegisteredPermutation(Net):
    """Channels in the order of a constant index, and a subset of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out, self.head = conv(3, 8), conv(8, 6), nn.Linear(11, 3)
        self.register_buffer("order", torch.tensor([3, 1, 7, 0, 2, 6, 5, 4]))
        self.register_buffer("subset", torch.tensor([1, 2, 4, 6, 7]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.out(torch.index_select(x, 1, self.order))
        return self.head(torch.cat([y, x[:, self.subset]], 1).mean((2, 3)))
