import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC reads it at its import, and writes a line at each later fork
