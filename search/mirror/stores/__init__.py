"""SwanLab's stores: its cloud, its local pages and its offline folder."""
