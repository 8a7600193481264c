"""The parts of `experiments.plan_pod`: chips, topologies, the compiled step, predictions."""
