"""The daemon of limetask: a supervisor, its task processes and the recorder."""
