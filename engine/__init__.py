"""What runs a training, knowing neither the networks nor the data: configuration, processes, optimisation, loops."""
