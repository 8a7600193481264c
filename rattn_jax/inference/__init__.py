"""A trained network: what it predicts, what it attends to, and how much that matters."""
