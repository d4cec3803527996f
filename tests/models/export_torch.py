"""Makes `torch_cnn.safetensors`: a small network that PyTorch trained on the digits, under PyTorch's names and layouts.

Run `python tests/models/export_torch.py` where torch is installed. The file's metadata say the accuracy that PyTorch
measured, and some of its outputs, so that the tests compare with PyTorch itself.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import fedjax_lc as fl

FILE = Path(__file__).with_name("torch_cnn.safetensors")


class Net(nn.Module):
    """As `cnn` of fedjax_lc, with fewer channels; layers are registered in another order than they are called."""

    def __init__(self):
        super().__init__()
        self.fc2 = nn.Linear(12, 10)
        self.fc1 = nn.Linear(6 * 2 * 2, 12)
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x):
        for layer in (self.conv1, self.conv2):
            x = nn.functional.max_pool2d(torch.relu(layer(x)), 2)
        return self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))


def main():
    torch.manual_seed(0)
    data = fl.data.load("digits", scale="minmax").split(0.2, seed=0)
    as_images = lambda rows: torch.tensor(np.asarray(rows), dtype=torch.float32).reshape(-1, 1, 8, 8)
    images, targets = as_images(data.features), torch.tensor(np.asarray(data.targets), dtype=torch.long)
    tests, answers = as_images(data.test.features), torch.tensor(np.asarray(data.test.targets), dtype=torch.long)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    with torch.no_grad():
        outputs = model(tests)
    facts = {"accuracy": float((outputs.argmax(1) == answers).float().mean()), "outputs": outputs[:3].tolist()}
    save_file(model.state_dict(), FILE, {"facts": json.dumps(facts)})
    print(facts["accuracy"], FILE.stat().st_size)


if __name__ == "__main__":
    main()
