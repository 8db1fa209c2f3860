"""What `punchin-tiny` must reach, measured: each figure on held-out songs, each metric first on true renders."""
