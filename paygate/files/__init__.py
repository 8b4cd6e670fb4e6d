"""Files that both servers and the client keep: text records, a private state directory, a database."""
