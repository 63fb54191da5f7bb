"""Commands, `python -m tools.NAME`. This file runs first, before PyTorch is imported."""

import os

# Threads that wait for another one sleep. By default they spin for a while: on a machine with other work, they take the
# very core that the other one needs, and a network on two threads ran at a third to a ninth of its speed on one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
