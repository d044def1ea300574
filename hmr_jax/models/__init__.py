"""One module per system: network and decoding to named outputs."""
