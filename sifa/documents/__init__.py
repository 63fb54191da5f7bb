"""What docs/ says twice, made from the source: tables of the paper, the picture of the rooms."""
