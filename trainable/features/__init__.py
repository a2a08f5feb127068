"""From a waveform to the input of a network."""
