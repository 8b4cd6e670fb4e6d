"""paygate-bench: how fast the servers are, beside what the same machine can do otherwise, measured in one run."""
