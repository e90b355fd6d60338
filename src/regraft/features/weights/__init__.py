"""Where weights come from, one file a source; the file name is the value of `--weights`."""
