"""Our results beside those of the paper: `agile-ray table`."""
