"""Batches -> outputs, loss, metrics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.metrics import Metric, count_correct, predictions_and_labels, ratio

from .params import Params


class Net(nn.Module):
    """Takes pixels, returns log-probabilities of the classes.

    The network scales the pixels itself, with the channel statistics of the data it was trained on, so that its
    weights are all that anyone needs to use it.
    """

    def __init__(self, params: Params):
        super().__init__()
        architectures = {"cnn": CNN, "resnet": ResNet}  # a new one is also added to `net` in params.py
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(params.data.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(params.data.std).clamp(min=1 / 255).view(3, 1, 1))
        self.body = architectures[params.net](
            params.num_channels, params.data.image_size, len(params.data.classes), params.dropout_rate
        )
        self.layout = torch.channels_last if params.channels_last else torch.contiguous_format
        self.to(memory_format=self.layout)

    def forward(self, images: Tensor) -> Tensor:
        """
        Args:
            images: batch_size x 3 x image_size x image_size, pixels of 0..255, of any number type.

        Returns:
            batch_size x num_classes log-probabilities, float32.
        """
        x = ((images - self.mean) / self.std).contiguous(memory_format=self.layout)
        return F.log_softmax(self.body(x).float(), dim=1)


class CNN(nn.Module):
    """The network of the CS230 notes: three times conv-bn-pool-relu, then two fully connected layers.

    Each pooling halves the image, each convolution but the first doubles the channels.
    """

    def __init__(self, num_channels: int, image_size: int, num_classes: int, dropout_rate: float):
        super().__init__()
        c = num_channels
        self.conv1 = nn.Conv2d(3, c, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c * 2, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(c * 2)
        self.conv3 = nn.Conv2d(c * 2, c * 4, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(c * 4)
        self.fc1 = nn.Linear((image_size // 8) ** 2 * c * 4, c * 4)
        self.fcbn1 = nn.BatchNorm1d(c * 4)
        self.dropout = nn.Dropout(dropout_rate)
        self.fc2 = nn.Linear(c * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        # with c = num_channels and images of 64x64                   batch_size x 3 x 64 x 64
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 2))  # batch_size x c x 32 x 32
        x = F.relu(F.max_pool2d(self.bn2(self.conv2(x)), 2))  # batch_size x 2c x 16 x 16
        x = F.relu(F.max_pool2d(self.bn3(self.conv3(x)), 2))  # batch_size x 4c x 8 x 8
        x = x.flatten(1)  # batch_size x 8*8*4c
        x = self.dropout(F.relu(self.fcbn1(self.fc1(x))))  # batch_size x 4c
        return self.fc2(x)  # batch_size x num_classes


class ResidualBlock(nn.Module):
    """Two convolutions and a way around them (He et al. 2016, figure 2 and section 3.3, option B)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


class ResNet(nn.Module):
    """A small residual network (He et al. 2016, "Deep residual learning for image recognition").

    It ends in an average over all places, so the image size changes its cost but not its parameters.
    """

    def __init__(self, num_channels: int, image_size: int, num_classes: int, dropout_rate: float):
        super().__init__()
        c = num_channels
        self.conv = nn.Conv2d(3, c, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(c)
        self.block1 = ResidualBlock(c, c, stride=1)
        self.block2 = ResidualBlock(c, c * 2, stride=2)
        self.block3 = ResidualBlock(c * 2, c * 4, stride=2)
        self.block4 = ResidualBlock(c * 4, c * 8, stride=2)
        self.dropout = nn.Dropout(dropout_rate)
        self.fc = nn.Linear(c * 8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        # with c = num_channels and images of 64x64   batch_size x 3 x 64 x 64
        x = F.relu(self.bn(self.conv(x)))  # batch_size x c x 32 x 32
        x = self.block1(x)  # batch_size x c x 32 x 32
        x = self.block2(x)  # batch_size x 2c x 16 x 16
        x = self.block3(x)  # batch_size x 4c x 8 x 8
        x = self.block4(x)  # batch_size x 8c x 4 x 4
        x = x.mean(dim=(2, 3))  # batch_size x 8c
        return self.fc(self.dropout(x))  # batch_size x num_classes


def loss_fn(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood. (The engine takes a loss for the mean over all labels; else see `num_items`.)

    Args:
        outputs: batch_size x num_classes log-probabilities.
        labels: batch_size class numbers.
    """
    return F.nll_loss(outputs, labels)


# Tables show the first metric first. `class_metrics()` would give F1 and AUC too. To choose the best weights by a new
# metric, add its name to `monitor` in params.py.
metrics = {"accuracy": Metric(keep=predictions_and_labels, count=count_correct, compute=ratio)}
