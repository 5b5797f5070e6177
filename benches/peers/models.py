"""The models of crates/ml in torch, from the same `config.json` and `model.safetensors`.

Modules are named as the tensors are, so that a file loads strictly or not at all. Written as one writes torch for speed:
scaled_dot_product_attention, exact gelu. Dropout is left out: it is 0 on both sides.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """One encoder layer; norms come after the residual sums."""

    def __init__(self, width, heads, neurons, epsilon):
        super().__init__()
        self.heads = heads
        projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(projections),
                "output": nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, epsilon)}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, neurons)})
        self.output = nn.ModuleDict({"dense": nn.Linear(neurons, width), "LayerNorm": nn.LayerNorm(width, epsilon)})

    def forward(self, x, queries=None):
        """What comes out for the first `queries` positions, or for all."""
        batch, _, width = x.shape
        projections, output = self.attention["self"], self.attention["output"]
        asked = x if queries is None else x[:, :queries]
        q, k, v = (
            projections[name](x).view(batch, x.shape[1], self.heads, -1).transpose(1, 2)
            for name, x in (("query", asked), ("key", x), ("value", x))
        )
        context = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, asked.shape[1], width)
        x = output["LayerNorm"](output["dense"](context) + asked)
        neurons = F.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](neurons) + x)


class Bert(nn.Module):
    # Whether the last layer computes the first position alone, as ours does, since nothing else of it is read.
    last_for_first = False

    def __init__(self, config, classes):
        super().__init__()
        width, epsilon = config["hidden_size"], config["layer_norm_eps"]
        layers = zip(config["layer_heads"], config["layer_intermediate"], strict=True)
        self.bert = nn.ModuleDict(
            {
                "embeddings": nn.ModuleDict(
                    {
                        "word_embeddings": nn.Embedding(config["vocab_size"], width),
                        "position_embeddings": nn.Embedding(config["max_position_embeddings"], width),
                        "token_type_embeddings": nn.Embedding(config["type_vocab_size"], width),
                        "LayerNorm": nn.LayerNorm(width, epsilon),
                    }
                ),
                "encoder": nn.ModuleDict(
                    {"layer": nn.ModuleList(Block(width, heads, neurons, epsilon) for heads, neurons in layers)}
                ),
                "pooler": nn.ModuleDict({"dense": nn.Linear(width, width)}),
            }
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, ids):
        tables = self.bert["embeddings"]
        positions = torch.arange(ids.shape[1], device=ids.device)
        segment = torch.zeros(1, dtype=torch.long, device=ids.device)
        place = tables["position_embeddings"](positions) + tables["token_type_embeddings"](segment)
        x = tables["LayerNorm"](tables["word_embeddings"](ids) + place)
        *blocks, last = self.bert["encoder"]["layer"]
        for block in blocks:
            x = block(x)
        x = last(x, 1 if self.last_for_first else None)
        return self.classifier(torch.tanh(self.bert["pooler"]["dense"](x[:, 0])))


class Lenet5(nn.Module):
    def __init__(self, config, classes):
        super().__init__()
        inputs, height, width = config["image"]
        first, second = config["conv_channels"]
        sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        self.conv1 = nn.Conv2d(inputs, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(second * sides[0] * sides[1], config["hidden_size"])
        self.fc2 = nn.Linear(config["hidden_size"], classes)

    def forward(self, pixels):
        x = F.max_pool2d(F.relu(self.conv1(pixels)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Stage(nn.Module):
    """A basic block; from the second stage on it halves the image."""

    def __init__(self, inputs, inner, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


class Resnet8(nn.Module):
    def __init__(self, config, classes):
        super().__init__()
        streams = [config["stage_channels"][0], *config["stage_channels"]]
        self.conv1 = nn.Conv2d(config["image"][0], streams[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(streams[0])
        for i, inner in enumerate(config["inner_channels"]):
            stage = Stage(streams[i], inner, streams[i + 1], 1 if i == 0 else 2)
            setattr(self, f"layer{i + 1}", nn.Sequential(stage))
        self.fc = nn.Linear(streams[-1], classes)

    def forward(self, pixels):
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class Mlp(nn.Module):
    def __init__(self, config, classes):
        super().__init__()
        widths = [config["inputs"], *config["hidden_sizes"], classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, pixels):
        x = pixels.flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


ARCHITECTURES = {"bert": Bert, "lenet5": Lenet5, "mlp": Mlp, "resnet8": Resnet8}


def load(folder: Path) -> nn.Module:
    """The model in `folder`, with its weights."""
    config = json.loads((folder / "config.json").read_text())
    model = ARCHITECTURES[config["model_type"]](config, len(config["id2label"]))
    tensors = load_file(folder / "model.safetensors")
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    # torch counts batches beside its running statistics, for a use that none of these models makes of it.
    lost = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lost or unexpected:
        raise ValueError(f"missing {lost}, unexpected {unexpected}")
    return model


def batches(folder: Path, rows: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Input and labels of each batch of `rows` rows of the case in `folder`."""
    tensors = load_file(folder / "batches.safetensors")
    ids = tensors.get("ids")
    inputs = tensors["pixels"] if ids is None else ids.long()
    return list(zip(inputs.split(rows), tensors["labels"].long().split(rows), strict=True))
