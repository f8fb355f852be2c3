"""Plans for accelerators that are not at hand: compile the step, read the program."""
