"""The PyTorch side: the networks in PyTorch, and weights that go there and come back."""
