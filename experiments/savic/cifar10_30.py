"""CIFAR-10, 30 % of a main class for each client, in the style of arXiv 2406.00846; small enough for a CPU."""

from experiments.savic._images import by_main_class

FIGURE = by_main_class("cifar10", "lenet", 0.3, rounds=300)
