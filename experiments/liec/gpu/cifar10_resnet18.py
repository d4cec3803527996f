"""CIFAR-10, ResNet-18, eight clients, ten blocks of signs, in the setting of arXiv 2402.11857: needs a GPU."""

from experiments.liec._images import full

FIGURE = full()
