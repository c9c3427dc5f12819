"""Protection measured: victims on protected samples, on clean samples and on random noise, one store or several."""
