"""A plugin of pytest: what follows runs on CUDA, on a simulated device where this machine has none."""

import torch

REAL = torch.cuda.is_available()

if not REAL:
    from device import simulated

    simulated.install()
    simulated.S.shuffle = True
