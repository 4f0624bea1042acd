"""What drover knows and decides, free of I/O: states, facts, decisions, retry. Imports the standard library only."""
