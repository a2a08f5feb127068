"""Every trial as a SwanLab experiment, written by processes beside the search."""
