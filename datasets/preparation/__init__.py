"""From other people's videos and label files to lists and frames: sources, labels, splits, extraction, writers."""
