"""What each command does once its arguments are read: `ms_vireid/train.py` has the parser, `train.py` here the work."""
