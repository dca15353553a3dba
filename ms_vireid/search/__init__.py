"""Search in galleries of features: exact, with FAISS, or in Milvus; what is found as a table, JSON and a sheet."""
