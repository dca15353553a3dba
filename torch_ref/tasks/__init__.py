"""What each command does once its arguments are read, as in `ms_vireid/tasks`."""
