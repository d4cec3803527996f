"""Data: sets by name, files, synthetic generators, and partitions over clients (NumPy only, no JAX).

data = load("breast_cancer", scale="standard")
indices = partition(data, 10, "dirichlet:0.5", seed=0)
print(PartitionReport.of(data, indices))
pairs = clients(data, indices)      # [(features (m_i, d), targets (m_i,)), ...]
"""

from fedjax_lc.data import partitions, synthetic
from fedjax_lc.data.asked import Reading
from fedjax_lc.data.dataset import Dataset, from_arrays, from_images, from_sequences
from fedjax_lc.data.drift import drift
from fedjax_lc.data.loading import load, names
from fedjax_lc.data.objects import from_object
from fedjax_lc.data.report import PartitionReport
from fedjax_lc.data.scaling import scaled, scalings
from fedjax_lc.data.splitting import Partitioner, clients, parse, partition

__all__ = [
    "Dataset",
    "PartitionReport",
    "Partitioner",
    "Reading",
    "clients",
    "drift",
    "from_arrays",
    "from_images",
    "from_object",
    "from_sequences",
    "load",
    "names",
    "parse",
    "partition",
    "partitions",
    "scaled",
    "scalings",
    "synthetic",
]
