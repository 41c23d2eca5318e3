"""Tang and Huang, "Active Learning for Multiple Target Models": what to run, and what to say of its claims."""
