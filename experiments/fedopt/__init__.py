"""FedAvg against adaptive servers (FedOpt, arXiv 2003.00295)."""
