"""Writing trained networks for deployment."""
