"""What nobody wishes for, on purpose: campaigns of faults, deaths at every write, odd messages by the thousand."""
