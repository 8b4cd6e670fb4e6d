"""The bench's peers: programs that do a part of what paygate does, measured on the same machine in the same run."""
