"""CIFAR-10, ResNet-18 with group norms, 50 % of a main class, in the style of arXiv 2406.00846: needs a GPU."""

from experiments.savic._images import full

FIGURE = full("cifar10", "resnet18", 0.5)
