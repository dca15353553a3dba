import ms_vireid.search.milvus_gallery  # noqa: F401 (before pymilvus itself: it keeps gRPC from writing at each fork)
