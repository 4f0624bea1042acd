"""`drover submit`: requests built from options, files or JSON Lines, sent as a producer would, and followed."""
