"""What lies in a folder of ``--format web``, for those who write one and those who serve it."""

# Describes the subnet.
CARD = "model.json"
# What it cannot do without.
KEYS = {"name", "precision", "sample_rate", "max_symbols"}
