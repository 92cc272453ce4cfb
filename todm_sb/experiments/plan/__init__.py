"""What a training will take, counted before there is a GPU: FLOPs, bytes, memory and hours."""
