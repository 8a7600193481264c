"""What `experiments.plan_pod` computes: chips, topologies, the compiled step, predictions."""
