"""What carries slots through time: for every slot by itself (Mamba, Mamba-2, S4D, S5) or for all slots together."""
