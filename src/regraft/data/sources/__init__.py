"""Sources of images, one file a kind: `folder`, `archive`, `table`, `memory`."""
