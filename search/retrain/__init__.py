"""From a search to a tested number and a model: `RUN/retrained/`."""
