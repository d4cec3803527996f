"""MNIST by eight clients alike, 15 epochs, both kinds of signs (arXiv 2402.11857); small enough for a CPU."""

from experiments.liec._images import small

FIGURE = small("mnist", "mnist_cnn", block=4096)
