"""What the CUDA kernels replace."""

from ms_vireid.backends.cuda import feature_maps, joining, losses, transformer, update
from ms_vireid.replaceable import check_tables

TABLE = {}
for module in (transformer, feature_maps, joining, losses, update):
    TABLE |= module.TABLE
check_tables("cuda", [TABLE])
