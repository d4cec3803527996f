"""Networks, and adapters that make any model a function of one parameter vector; only this room imports flax."""

from fedjax_lc.models import files
from fedjax_lc.models.adapter import Layout, Network, adapt, batch_statistics, fit, only_rows
from fedjax_lc.models.layers import Conv, convolution_route, convolutions, max_pool
from fedjax_lc.models.nets import MLP, EmnistCNN, FashionCNN, Linear, MnistCNN, SmallCNN, TanhLeNet
from fedjax_lc.models.registry import get, names
from fedjax_lc.models.resnet import ResNet18, ResNet34
from fedjax_lc.models.text import LSTM, CharLSTM

__all__ = [
    "LSTM",
    "MLP",
    "CharLSTM",
    "Conv",
    "EmnistCNN",
    "FashionCNN",
    "Layout",
    "Linear",
    "MnistCNN",
    "Network",
    "ResNet18",
    "ResNet34",
    "SmallCNN",
    "TanhLeNet",
    "adapt",
    "batch_statistics",
    "convolution_route",
    "convolutions",
    "files",
    "fit",
    "get",
    "max_pool",
    "names",
    "only_rows",
]
