"""What things cost on this machine, and what machine it is."""
