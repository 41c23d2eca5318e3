"""What the roles of asynchronous active learning share."""
