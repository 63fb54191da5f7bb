"""From videos and label files of others to lists and frames: sources, labels, splits, extraction, writers."""
