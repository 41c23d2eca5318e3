"""The paper's figures and tables, reproduced: what to run, how to run it, what it says of the paper's claims."""
